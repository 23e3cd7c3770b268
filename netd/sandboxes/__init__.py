"""Sandboxes: network namespaces with their endpoints, of containers and attached ones."""
