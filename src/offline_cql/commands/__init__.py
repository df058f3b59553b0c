"""From a checked config to a finished run folder. Light to import: Hydra loads `grid` early."""
