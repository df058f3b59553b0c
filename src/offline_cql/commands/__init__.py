"""The commands, from a validated config to a finished run folder.

Imports nothing, because Hydra imports `multirun` early.
"""
