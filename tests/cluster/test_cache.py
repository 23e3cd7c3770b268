"""What a host knows of the cluster is kept, however often its own store fails meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from netd.cluster.cache import Cache
from tests.fakes.calls import Calls
from tests.fakes.loop import Loop
from tests.fakes.store import FakeStore


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def test_what_cannot_be_written_is_written_later_unless_it_has_changed(loop: Loop) -> None:
    calls = Calls()
    store = FakeStore(calls)
    cache = Cache(cast(Any, store), "hosts", str)
    loop.create_task(cache.write())
    cache.put("a", "1")
    cache.put("b", "1")
    while not calls.waiting:
        loop.step()
    for call in calls.waiting:
        call.fails = True
    cache.put("b", "2")
    loop.settle()
    assert store.under("cluster/hosts") == {"a": b'"1"', "b": b'"2"'}


def test_what_changes_while_something_is_written_is_written_at_once(loop: Loop) -> None:
    calls = Calls()
    store = FakeStore(calls)
    cache = Cache(cast(Any, store), "hosts", str)
    loop.create_task(cache.write())
    cache.put("a", "1")
    while not calls.waiting:
        loop.step()
    cache.put("b", "1")
    loop.settle(0)
    assert store.under("cluster/hosts") == {"a": b'"1"', "b": b'"1"'}
