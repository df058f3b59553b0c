"""Where data come from: one file per format, one writer that all of them pass, one cache."""

from offline_cql.readers.cache import load
from offline_cql.readers.writer import Source, Steps, TransitionWriter

__all__ = ["Source", "Steps", "TransitionWriter", "load"]
