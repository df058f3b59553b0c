"""Data sets from files: one reader per format, one validating writer, one cache."""

from offline_cql.readers.cache import load
from offline_cql.readers.writer import Reader, Steps, TransitionWriter

__all__ = ["Reader", "Steps", "TransitionWriter", "load"]
