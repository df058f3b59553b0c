"""Off-policy evaluation: estimates of a policy's return from logged data alone."""
