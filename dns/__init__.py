"""Names of a sandbox to answers: the embedded resolver at 127.0.0.11, forwarding, and the client that controls it."""
