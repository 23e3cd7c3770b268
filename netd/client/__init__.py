"""A client of the daemon's API: used by the command line and by the lab."""
