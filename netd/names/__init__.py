"""Names: what the resolver is told, what users ask of it, what containers read in resolv.conf."""
