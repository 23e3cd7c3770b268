"""Records over a store in memory: what cannot be read harms nothing else."""

from __future__ import annotations

import pytest
from msgspec import Struct

from kvstore.contract import Entry
from netd.core.errors import Conflict
from netd.core.records import Records
from tests.fakes.calls import Calls
from tests.fakes.loop import Loop
from tests.fakes.store import FakeStore


class Thing(Struct, frozen=True):
    name: str


def test_a_record_that_cannot_be_read_is_left_alone() -> None:
    with Loop() as loop:
        values = {"a": b'{"name": "first"}', "b": b'{"name": 7}', "c": b"\xff\x00", "d": b'{"name": "last"}'}
        store = FakeStore(Calls(), {f"things/{k}": Entry(f"things/{k}", v, 1) for k, v in values.items()})
        records = Records(store, "things", Thing)  # type: ignore[arg-type]
        loop.run(records.load())
        assert records.items == {"a": Thing("first"), "d": Thing("last")}
        with pytest.raises(Conflict):
            loop.run(records.add("b", Thing("second")))
        assert store.under("things") == values
        assert records.unreadable == {"b", "c"}, "so that nobody takes what belongs to it for a left-over"
