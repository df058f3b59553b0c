"""What a policy would earn, from logged data alone: estimates with intervals and assumptions."""
