"""Zone file lines (RFC 1035 section 5) as table entries."""

from __future__ import annotations

from collections.abc import Iterator

from dnslib import CLASS, RR
from dnslib.buffer import BufferError
from dnslib.dns import DNSError
from dnslib.label import DNSLabelError

from dns import wire

_NO_TTL = 0x7FFFFFFF


class ZoneError(ValueError):
    """A line that is no resource record; the message says which."""


def lines(text: str) -> Iterator[str]:
    """The records in an option's value: separated by `;` or line ends."""
    return (line for part in text.splitlines() for piece in part.split(";") if (line := piece.strip()))


def parse_record(line: str) -> tuple[bytes, int, int | None, bytes]:
    """`www 60 IN A 10.1.2.3` as folded name, type, TTL (None if not given) and data; raises `ZoneError`."""
    try:
        found = RR.fromZone(line, ttl=_NO_TTL)
        if len(found) != 1 or found[0].rclass != CLASS.IN:
            raise ZoneError(f"{line!a} is not one record of class IN")
        rr = found[0]
        name = wire.encode_name(".".join(label.decode() for label in rr.rname.label)).lower()
        return name, int(rr.rtype), None if rr.ttl == _NO_TTL else int(rr.ttl), wire.record_data(rr)
    except ZoneError:
        raise
    except (DNSError, BufferError, DNSLabelError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ZoneError(
            f"{line!a} is not a resource record: write it like `www 60 IN A 10.1.2.3` ({str(error)!a})"
        ) from None
