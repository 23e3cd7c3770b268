"""Replies of upstreams, kept as long as their TTLs allow (RFC 1035, RFC 2308); bounded, oldest use goes first."""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from dns import wire

MAX_TTL = 86400  # seconds
MAX_NEGATIVE_TTL = 900  # RFC 2308 section 5 allows hours; a new name should not take as long to be seen
_TTL = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class _Entry:
    message: bytes
    ttls: tuple[tuple[int, int], ...]  # offset and value of each
    stored: float
    expires: float


class Cache:
    """A bounded store of replies by question; times are `time.monotonic` seconds."""

    def __init__(self, max_bytes: int = 8 << 20) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: Hashable, message: bytes, now: float | None = None) -> None:
        """Keep a reply that has passed `reply_records`; what may not be kept is ignored."""
        found = lifetime(message)
        if found is None:
            return
        seconds, ttls = found
        now = time.monotonic() if now is None else now
        self._remove(key)
        self._entries[key] = _Entry(message, ttls, now, now + seconds)
        self._bytes += _cost(message)
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def get(self, key: Hashable, now: float | None = None) -> bytes | None:
        """A kept reply with its TTLs counted down; its id and question are those of the first asker."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = time.monotonic() if now is None else now
        if now >= entry.expires:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        age = int(now - entry.stored)
        if not age:
            return entry.message
        message = bytearray(entry.message)
        for at, ttl in entry.ttls:
            _TTL.pack_into(message, at, max(0, ttl - age))
        return bytes(message)

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _cost(entry.message)


def _cost(message: bytes) -> int:
    return len(message) + 600  # about what the entry, its key and its offsets take


def lifetime(message: bytes) -> tuple[int, tuple[tuple[int, int], ...]] | None:
    """How many seconds a reply may be kept, and where its TTLs are; None if it may not be kept at all."""
    _, flags, questions, *counts = wire.HEADER.unpack_from(message)
    rcode = flags & 15
    if flags & wire.TC or questions != 1 or rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return None
    rrs = list(wire.records(message, wire.name_end(message, 12) + 4, counts))
    real = [rr for rr in rrs if rr.type != wire.OPT]
    answers = [rr for rr in real if rr.section == 1]
    if any(rr.ttl >= 1 << 31 for rr in real):
        return None  # RFC 2181 section 8: counts as zero
    if rcode == wire.NOERROR and answers:
        seconds = min(MAX_TTL, *(rr.ttl for rr in real if rr.section < 3))
    else:
        negative = _negative_ttl(message, real)
        if negative is None:
            return None
        seconds = min([negative, *(rr.ttl for rr in answers)])
    if not seconds:
        return None
    return seconds, tuple((rr.ttl_at, rr.ttl) for rr in real)


def _negative_ttl(message: bytes, rrs: list[wire.RR]) -> int | None:
    """RFC 2308 section 5: the lesser of the SOA's TTL and its MINIMUM; without an SOA nothing is kept."""
    for rr in rrs:
        if rr.section == 2 and rr.type == wire.SOA and rr.end - rr.data_at >= 22:
            (minimum,) = _TTL.unpack_from(message, rr.end - 4)
            return min(rr.ttl, int(minimum), MAX_NEGATIVE_TTL)
    return None
