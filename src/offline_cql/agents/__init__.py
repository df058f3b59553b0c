"""The agents: one algorithm each, built from its own settings."""

from offline_cql.agents.base import Agent, Policy

__all__ = ["Agent", "Policy"]
