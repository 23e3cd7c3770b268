"""The daemon's options: on the command line and in daemon.json."""
