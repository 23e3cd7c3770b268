"""What every backend can hold."""

from __future__ import annotations

from kvstore.contract import Entry, StoreError

Entries = list[Entry]  # for use inside classes that have a method `list`

MAX_VALUE = 350 * 1024  # bytes; in base64 it fits the 512 KiB of a Consul transaction, the lowest limit of all


def check_size(key: str, value: bytes) -> None:
    """Raise `StoreError` for a value that not every backend could hold."""
    if len(value) > MAX_VALUE:
        raise StoreError(f"the value of {key!r} has {len(value)} bytes; the most is {MAX_VALUE}")
