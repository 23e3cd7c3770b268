"""IP address management: pools for networks, addresses for endpoints."""
