"""`netd daemon`: what the process is, and how its parts are put together."""
