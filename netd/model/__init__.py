"""The objects of the Docker Engine API, and what netd stores, as values."""
