"""Images as stored."""

from __future__ import annotations

from typing import Any

from netd.model.docker import Docker


class ImageConfig(Docker, frozen=True):
    """The configuration an image gives to its containers."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    volumes: dict[str, dict[str, Any]] | None = None


class Image(Docker, frozen=True):
    """An image as stored: one root file system and the configuration that goes with it."""

    id: str  # "sha256:<64 hex>"
    created: str
    repo_tags: list[str]
    config: ImageConfig
    size: int = 0  # bytes
    comment: str = ""
    layer: str = ""  # "sha256:<64 hex>" of the uncompressed archive it was made from
