"""Images as Docker's API shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from netd.core.times import unix_seconds
from netd.images.store import ARCHITECTURE
from netd.model.containers import ContainerConfig
from netd.model.images import Image

Json = dict[str, Any]


def inspect(image: Image, rootfs: Path) -> Json:
    """GET /images/{name}/json."""
    return {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": [],
        "Parent": "",
        "Comment": image.comment,
        "Created": image.created,
        "DockerVersion": "",
        "Author": "",
        "Config": msgspec.to_builtins(ContainerConfig(**asdict(image.config))),
        "Architecture": ARCHITECTURE,
        "Os": "linux",
        "Size": image.size,
        "GraphDriver": {"Data": {"UpperDir": str(rootfs)}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [image.layer]},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def summary(image: Image) -> Json:
    """One element of GET /images/json."""
    return {
        "Containers": -1,
        "Created": int(unix_seconds(image.created)),
        "Id": image.id,
        "Labels": image.config.labels,
        "ParentId": "",
        "RepoDigests": [],
        "RepoTags": image.repo_tags,
        "SharedSize": -1,
        "Size": image.size,
    }


def history(image: Image) -> list[Json]:
    """GET /images/{name}/history: one layer."""
    return [
        {
            "Id": image.id,
            "Created": 0,
            "CreatedBy": "",
            "Tags": image.repo_tags,
            "Size": image.size,
            "Comment": image.comment,
        }
    ]
