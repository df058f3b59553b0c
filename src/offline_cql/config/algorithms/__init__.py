"""The algorithms of `algorithm=…`. A new one is added here: an entry and a section.

Imports no agent: `Algorithm.agent_path` is resolved when an agent is built.
"""

from offline_cql.config.algorithms import bc, cql
from offline_cql.config.algorithms.base import Algorithm
from offline_cql.config.algorithms.bc import BcConfig
from offline_cql.config.algorithms.cql import CqlConfig
from offline_cql.config.section import Section, Text

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmSections", "BcConfig", "CqlConfig"]

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (cql.ALGORITHM, bc.ALGORITHM)
}


class AlgorithmSections(Section):
    """The chosen algorithm and the sections of all; cql is always set, as its presets are."""

    algorithm: Text
    cql: CqlConfig
    bc: BcConfig | None = None

    def check(self) -> None:
        """Raise ConfigError for an unknown algorithm, or one without its section."""
        registered = self.algorithm in ALGORITHMS
        self.require(registered, "algorithm", f"must be one of {', '.join(ALGORITHMS)}")
        complete = getattr(self, self.algorithm) is not None
        self.require(complete, "algorithm", f"needs its settings, the section {self.algorithm}")

    def algorithm_section(self) -> Section:
        """Return the section of the chosen algorithm."""
        section: Section = getattr(self, self.algorithm)
        return section
