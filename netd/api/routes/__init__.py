"""The routes, by the first word of their paths."""
