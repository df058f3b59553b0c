"""What happens around the updates: the record, rollouts, checkpoints, the bar."""
