"""Moving everything from one cluster store to another, as lines of JSON: `{"key": ..., "value": base64}`.

Leased records are left out: the hosts register in the new store themselves.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import msgspec

from kvstore.contract import Entry, KeyExists, Store, VersionMismatch
from netd.cluster import hosts
from netd.cluster.calls import patiently
from netd.core.errors import InvalidParameter

FORMAT = 1
PREFIXES = ("networks/", "names/", "vni/", "subnets/", "ep/", "ipam/", "epname/")


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    netd_store: int


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str


class Outcome(NamedTuple):
    """Of an import: how many keys were written, and which were there with another value."""

    written: int
    differing: tuple[str, ...]


async def export(store: Store) -> AsyncIterator[bytes]:
    """The lines, in the order in which a crash between two of them does least harm at the other end."""
    yield msgspec.json.encode(_Header(FORMAT)) + b"\n"
    # claims before what relies on them
    for prefix in sorted(PREFIXES, key=lambda p: p in ("networks/", "ep/")):
        for entry in await patiently(lambda prefix=prefix: store.list(prefix)):  # type: ignore[misc]
            line = _Line(entry.key, b64encode(entry.value).decode())
            yield msgspec.json.encode(line) + b"\n"


async def import_(store: Store, lines: Iterable[bytes], *, force: bool = False) -> Outcome:
    """Write what `export` told; a key that is there with another value is left, or (`force`) replaced.

    Raises `InvalidParameter` for a file that is not of this kind, `Unavailable`; it may be run again.
    """
    iterator = iter(lines)
    _check_header(next(iterator, b""))
    written, differing = 0, []
    for number, line in enumerate(iterator, 2):
        entry = _parse(line, number)
        if await patiently(lambda entry=entry: _write(store, entry, force)):  # type: ignore[misc]
            written += 1
        else:
            differing.append(entry.key)
    return Outcome(written, tuple(differing))


async def _write(store: Store, entry: Entry, force: bool) -> bool:
    while True:
        try:
            await store.create(entry.key, entry.value)
            return True
        except KeyExists:
            present = await store.get(entry.key)
        if present is None:
            continue
        if present.value == entry.value:
            return True
        if not force:
            return False
        try:
            await store.cas(entry.key, entry.value, present.version)
            return True
        except VersionMismatch:
            continue


def _check_header(line: bytes) -> None:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except msgspec.DecodeError:
        raise InvalidParameter("this is not a file that `netd store export` wrote") from None
    if header.netd_store != FORMAT:
        raise InvalidParameter(f"the file has format {header.netd_store}; this netd reads format {FORMAT}")


def _parse(line: bytes, number: int) -> Entry:
    try:
        parsed = msgspec.json.decode(line, type=_Line)
        value = b64decode(parsed.value, validate=True)
    except ValueError as error:
        raise InvalidParameter(f"line {number} of the file is damaged: {error}") from None
    if not parsed.key.startswith(PREFIXES) or parsed.key.startswith(hosts.PREFIX):
        raise InvalidParameter(f"line {number} of the file has the key {parsed.key!r}, which is none of netd's")
    return Entry(parsed.key, value, 0)
