"""Every pair of operations, the second begun at every await of the first."""
