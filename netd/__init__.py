"""The network daemon: model, managers, reconcile, Docker Engine API, CLI and launcher."""

__version__ = "0.1.0"
