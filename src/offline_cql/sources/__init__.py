"""Where data come from: one file per format, one gate that all of them pass, one cache."""

from offline_cql.sources.cache import load
from offline_cql.sources.gate import Gate, Source, Steps

__all__ = ["Gate", "Source", "Steps", "load"]
