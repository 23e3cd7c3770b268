"""Who holds a sandbox is told what has become of its endpoints, and told again until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from netd.cluster.model import EndpointRecord
from netd.core.tasks import Tasks
from netd.sandboxes.holders import follow_up, lose_endpoints
from tests.fakes.loop import Loop

LOST = EndpointRecord(id="e", network_id="n", name="web", mac="", container_id="c")


class Holder:
    """One that refuses at first."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.told: list[tuple[str, ...]] = []

    async def lose_endpoint(self, container_id: str, endpoint_id: str) -> None:
        self._tell(container_id, endpoint_id)

    async def follow_up(self, container_id: str) -> None:
        self._tell(container_id)

    def _tell(self, *words: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("no room")
        self.told.append(words)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def test_a_lost_endpoint_is_taken_from_whoever_holds_it_however_often_that_fails(loop: Loop) -> None:
    lost: asyncio.Queue[EndpointRecord] = asyncio.Queue()
    willing, full, tasks = Holder(0), Holder(5), Tasks()
    tasks.start(lose_endpoints(lost, (willing, full), tasks), "losing")
    lost.put_nowait(LOST)
    loop.settle(60)
    assert willing.told == full.told == [("c", "e")]


def test_what_follows_from_an_endpoint_is_tried_until_it_is_done_by_one_job_for_each(loop: Loop) -> None:
    behind: asyncio.Queue[str] = asyncio.Queue()
    holder, tasks = Holder(3), Tasks()
    tasks.start(follow_up(behind, (holder,), tasks), "following up")
    for container in ("c", "c", "d", "c"):
        behind.put_nowait(container)
    loop.settle(0)
    assert len(tasks) == 3
    loop.settle(60)
    assert sorted(holder.told) == [("c",), ("d",)]
    behind.put_nowait("c")  # which may happen again
    loop.settle(1)
    assert sorted(holder.told) == [("c",), ("c",), ("d",)]
