"""DNS messages as bytes: just what the resolver needs to read questions, compose answers and check replies.

Names are kept in wire form (RFC 1035 section 3.1: length-prefixed labels, ended by a zero byte) and compared
folded to lower case (RFC 4343). Nothing here follows a compression pointer, so nothing here can loop.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dnslib.label import DNSBuffer

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QUERY, NOTIFY = 0, 4

QR, TC, RD, RA, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE_MASK = 0x7800

HEADER = struct.Struct("!HHHHHH")  # id, flags, questions, answers, authorities, additionals
_RR_TAIL = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name, always at offset 12

UDP_SIZE = 512  # RFC 1035 section 4.2.1: without EDNS
EDNS_SIZE = 1232  # DNS flag day 2020: fits every path without fragments
DO = 0x8000  # RFC 3225
MAX_SIZE = 65535


class Malformed(ValueError):
    """The bytes are not a DNS message of the kind expected."""


class Edns(NamedTuple):
    """What an OPT record says (RFC 6891 section 6.1)."""

    size: int
    version: int
    do: bool
    options: bytes


class Query(NamedTuple):
    """A question as it came: the name both as spelled and folded to lower case."""

    id: int
    flags: int
    name: bytes
    folded: bytes
    type: int
    class_: int
    edns: Edns | None

    @property
    def question(self) -> bytes:
        """The question section."""
        return self.name + struct.pack("!HH", self.type, self.class_)


class RR(NamedTuple):
    """One resource record inside a message; offsets count from the message's start."""

    section: int  # 1 answer, 2 authority, 3 additional
    type: int
    class_: int
    ttl: int
    ttl_at: int
    data_at: int
    end: int


def name_end(message: bytes, at: int) -> int:
    """The offset behind an uncompressed name; raises `Malformed`."""
    start = at
    try:
        while length := message[at]:
            if length > 63:
                raise Malformed("label longer than 63 bytes or compressed")
            at += length + 1
    except IndexError:
        raise Malformed("name runs over the end") from None
    if at - start > 254:
        raise Malformed("name longer than 255 bytes")
    return at + 1


def _skip_name(message: bytes, at: int) -> int:
    try:
        while length := message[at]:
            if length >= 0xC0:
                return at + 2
            if length > 63:
                raise Malformed("unknown label type")
            at += length + 1
    except IndexError:
        raise Malformed("name runs over the end") from None
    return at + 1


def records(message: bytes, at: int, counts: Sequence[int]) -> Iterator[RR]:
    """The records of answer, authority and additional section from offset `at` on; raises `Malformed`."""
    for section, count in enumerate(counts, 1):
        for _ in range(count):
            at = _skip_name(message, at)
            if at + 10 > len(message):
                raise Malformed("record runs over the end")
            kind, class_, ttl, length = _RR_TAIL.unpack_from(message, at)
            end = at + 10 + length
            if end > len(message):
                raise Malformed("record data runs over the end")
            yield RR(section, kind, class_, ttl, at + 4, at + 10, end)
            at = end


def parse_query(message: bytes) -> Query:
    """Read a client's message; only its first question counts (fact 1.16). Raises `Malformed`."""
    if len(message) < 17:
        raise Malformed("shorter than a question")
    ident, flags, questions, *counts = HEADER.unpack_from(message)
    end = name_end(message, 12)
    if end + 4 > len(message):
        raise Malformed("question runs over the end")
    kind, class_ = struct.unpack_from("!HH", message, end)
    name = message[12:end]
    at = end + 4
    for _ in range(questions - 1):
        at = _skip_name(message, at) + 4
    edns = _find_edns(message, at, counts) if any(counts) else None
    return Query(ident, flags, name, name.lower(), kind, class_, edns)


def _find_edns(message: bytes, at: int, counts: Sequence[int]) -> Edns | None:
    found = None
    for rr in records(message, at, counts):
        if rr.type == OPT and rr.section == 3:
            if found is not None:
                raise Malformed("more than one OPT record")
            version, do = rr.ttl >> 16 & 0xFF, bool(rr.ttl & DO)
            found = Edns(rr.class_, version, do, message[rr.data_at : rr.end])
    return found


def opt_record(do: bool, *, size: int = EDNS_SIZE, rcode: int = NOERROR, options: bytes = b"") -> bytes:
    """An OPT record; the upper bits of the result code are in it (RFC 6891 section 6.1.3)."""
    return b"\0" + _RR_TAIL.pack(OPT, size, (rcode >> 4) << 24 | (DO if do else 0), len(options)) + options


def record(kind: int, ttl: int, data: bytes, owner: bytes = _QUESTION) -> bytes:
    """A resource record of class IN; its owner is the name asked for unless another is given."""
    return owner + _RR_TAIL.pack(kind, IN, ttl, len(data)) + data


def compose(
    query: Query,
    limit: int,
    rcode: int = NOERROR,
    answers: Sequence[bytes] = (),
    authorities: Sequence[bytes] = (),
    additionals: Sequence[bytes] = (),
) -> bytes:
    """A reply to `query` of at most `limit` bytes.

    What does not fit is left out, whole records at a time; TC tells of missing answers or authorities only
    (RFC 2181 section 9). RD and CD are copied, RA is set, AA is not (fact 1.14).
    """
    flags = QR | RA | query.flags & (OPCODE_MASK | RD | CD) | rcode & 15
    opt = opt_record(query.edns.do, rcode=rcode) if query.edns is not None else b""
    room = limit - 12 - len(query.name) - 4 - len(opt)
    counts = [0, 0, 0]
    kept: list[bytes] = []
    for section, rrs in enumerate((answers, authorities, additionals)):
        for rr in rrs:
            if len(rr) > room:
                if section < 2:
                    flags |= TC
                room = 0
                break
            room -= len(rr)
            kept.append(rr)
            counts[section] += 1
    if opt:
        kept.append(opt)
        counts[2] += 1
    return HEADER.pack(query.id, flags, 1, *counts) + query.question + b"".join(kept)


def uncompressed(rr: Any) -> bytes:
    """A dnslib record as bytes that stand for themselves in any message."""
    owner = DNSBuffer()
    owner.encode_name_nocompress(rr.rname)
    return record(rr.rtype, rr.ttl, record_data(rr), bytes(owner.data))


def record_data(rr: Any) -> bytes:
    """The data of a dnslib record, without compression."""
    buffer = _PlainBuffer()
    rr.rdata.pack(buffer)
    return bytes(buffer.data)


class _PlainBuffer(DNSBuffer):  # type: ignore[misc]
    """Never compresses: for record data that is put into many messages."""

    def encode_name(self, name: Any) -> None:
        self.encode_name_nocompress(name)


def reply_limit(query: Query) -> int:
    """How many bytes the client takes over UDP (fact 1.25)."""
    return UDP_SIZE if query.edns is None else max(UDP_SIZE, query.edns.size)


def header_error(message: bytes, rcode: int) -> bytes:
    """A reply with nothing but a header, for what cannot be read as a question."""
    ident, flags, *_ = HEADER.unpack_from(message)
    return HEADER.pack(ident, QR | flags & (OPCODE_MASK | RD) | rcode, 0, 0, 0, 0)


def soa_record(ttl: int) -> bytes:
    """The SOA that makes a negative answer cacheable (RFC 2308 section 3), in the form of RFC 6303 section 3.

    The zone is the name asked for itself.
    """
    data = _QUESTION + encode_name("nobody.invalid") + struct.pack("!IIIII", 1, 3600, 1200, 604800, ttl)
    return record(SOA, ttl, data)


def encode_name(text: str) -> bytes:
    """`web.shop` in wire form; a trailing dot is ignored. Raises `Malformed` for what no name can hold."""
    text = text.removesuffix(".")
    if not text:
        return b"\0"
    labels = [label.encode() for label in text.split(".")]
    if any(not 0 < len(label) < 64 for label in labels):
        raise Malformed("a label is empty or longer than 63 bytes")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > 255:
        raise Malformed("name longer than 255 bytes")
    return wire


_UNSAFE = re.compile(rb"[^!-~]|[\\.\"();@$]")


def show_name(wire: bytes) -> str:
    """A name in wire form as harmless text: everything odd is escaped as in RFC 1035 section 5.1."""
    shown = (_UNSAFE.sub(lambda odd: b"\\%03d" % odd[0][0], label).decode("ascii") for label in labels(wire))
    return ".".join(shown) + "."


def parent(name: bytes) -> bytes:
    """The name without its first label."""
    return name[name[0] + 1 :]


def labels(name: bytes, most: int = 128) -> list[bytes]:
    """The first labels of a name."""
    found: list[bytes] = []
    while name[0] and len(found) < most:
        found.append(name[1 : name[0] + 1])
        name = parent(name)
    return found


def suffixes(name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut a name in two, longest first part first (fact 1.28); both parts are whole names."""
    cuts = []
    at = 0
    while name[at]:
        cuts.append(at)
        at += name[at] + 1
    for cut in reversed(cuts[1:]):
        yield name[:cut] + b"\0", name[cut:]


def reverse_name(packed: bytes) -> bytes:
    """The in-addr.arpa or ip6.arpa name of a packed address (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    if len(packed) == 4:
        return encode_name(".".join(str(byte) for byte in reversed(packed)) + ".in-addr.arpa")
    return encode_name(".".join(reversed(packed.hex())) + ".ip6.arpa")


_REVERSE4, _REVERSE6 = encode_name("in-addr.arpa"), encode_name("ip6.arpa")


def reverse_address(name: bytes) -> bytes | None:
    """The packed address that a folded reverse name stands for, or None if it is no such name."""
    labels = []
    while name[0] and name not in (_REVERSE4, _REVERSE6):
        labels.append(name[1 : name[0] + 1])
        name = parent(name)
    try:
        if name == _REVERSE4 and len(labels) == 4:
            return bytes(int(label) for label in reversed(labels) if label.isdigit() and len(label) < 4)
        if name == _REVERSE6 and len(labels) == 32 and all(len(label) == 1 for label in labels):
            return bytes.fromhex(b"".join(reversed(labels)).decode("ascii"))
    except ValueError:
        pass
    return None
