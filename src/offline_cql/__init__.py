"""Conservative Q-Learning: from a fixed data set to a policy one can judge before running it."""

__version__ = "0.1.0"
