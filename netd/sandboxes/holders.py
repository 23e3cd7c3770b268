"""Who holds sandboxes, containers and attached namespaces, is told here what has become of their endpoints.

Each by itself: whoever starts or stops one now holds its lock, and may wait for the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from netd.cluster.model import EndpointRecord
from netd.core.tasks import Tasks


class Holder(Protocol):
    """One of the two. What it does not hold is none of its business."""

    async def lose_endpoint(self, container_id: str, endpoint_id: str) -> None:
        """Take an endpoint away that is not this container's any more."""

    async def follow_up(self, container_id: str) -> None:
        """Add or take away the gateway endpoint, as follows from the others."""


async def lose_endpoints(lost: asyncio.Queue[EndpointRecord], holders: Sequence[Holder], tasks: Tasks) -> None:
    """Take away the endpoints that the cluster has given to somebody else; runs until cancelled."""
    while True:
        endpoint = await lost.get()
        for holder in holders:
            lose = partial(holder.lose_endpoint, endpoint.container_id, endpoint.id)
            tasks.until_done(lose, f"taking the lost endpoint of {endpoint.name} away")


async def follow_up(behind: asyncio.Queue[str], holders: Sequence[Holder], tasks: Tasks) -> None:
    """Do what follows from an endpoint and could not be done with it; runs until cancelled."""
    under_way: set[str] = set()

    async def follow(container_id: str) -> None:
        for holder in holders:
            await holder.follow_up(container_id)
        under_way.discard(container_id)

    while True:
        container_id = await behind.get()
        if container_id not in under_way:
            under_way.add(container_id)
            tasks.until_done(partial(follow, container_id), f"following up the networks of {container_id[:12]}")
