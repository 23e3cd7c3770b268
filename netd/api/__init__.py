"""The Docker Engine API, versions 1.24 to 1.48, over the managers."""
