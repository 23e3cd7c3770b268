"""Containers: created, started, stopped and removed, joined to networks, published, attached to, shown."""
