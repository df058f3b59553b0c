"""Work around the updates: metrics, evaluation, validation, checkpoints, progress, loggers."""
