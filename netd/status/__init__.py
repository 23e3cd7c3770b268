"""How the daemon is: what `info` and `version` show, and what Prometheus reads."""
