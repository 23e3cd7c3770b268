"""From what a backend sees to what a watch tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kvstore.contract import Change, Entry, StoreError

Entries = list[Entry]  # for use inside classes that have a method `list`

MAX_VALUE = 350 * 1024  # bytes; in base64 it fits the 512 KiB of a Consul transaction, the lowest limit of all


def check_size(key: str, value: bytes) -> None:
    """Raise `StoreError` for a value that not every backend could hold."""
    if len(value) > MAX_VALUE:
        raise StoreError(f"the value of {key!r} has {len(value)} bytes; the most is {MAX_VALUE}")


def difference(seen: dict[str, int], keys: Collection[str] | None, entries: Iterable[Entry]) -> Change:
    """What `entries`, the present state of `keys` (None: of all), changes in `seen`; updates `seen`."""
    present = {entry.key: entry for entry in entries}
    puts = {key: entry for key, entry in present.items() if seen.get(key) != entry.version}
    looked_at = seen.keys() if keys is None else seen.keys() & keys
    deletes = frozenset(looked_at - present.keys())
    for key in deletes:
        del seen[key]
    seen.update((key, entry.version) for key, entry in puts.items())
    return Change(puts, deletes)
