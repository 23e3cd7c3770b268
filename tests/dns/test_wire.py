"""The wire codec against dnslib as the oracle, and against chance."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from dnslib import EDNS0, RR, DNSHeader, DNSQuestion, DNSRecord
from dnslib.label import DNSLabel
from hypothesis import given, settings
from hypothesis import strategies as st

from dns import wire
from dns.answer import Local, render
from dns.cache import lifetime
from dns.upstream import fits

LABELS = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=6).filter(
    lambda labels: sum(len(label) + 1 for label in labels) < 255
)
TYPES = st.integers(0, 65535)
calm = settings(max_examples=60)


def encode(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


@calm
@given(LABELS, TYPES, st.integers(0, 65535), st.none() | st.tuples(st.integers(0, 65535), st.booleans()))
def test_a_question_is_read_as_dnslib_packs_it(
    labels: list[bytes], kind: int, ident: int, edns: tuple[int, bool] | None
) -> None:
    record = DNSRecord(DNSHeader(id=ident, rd=1), q=DNSQuestion(DNSLabel(labels), kind))
    if edns is not None:
        record.add_ar(EDNS0(udp_len=edns[0], flags="do" if edns[1] else ""))
    query = wire.parse_query(bytes(record.pack()))
    assert (query.id, query.type, query.name) == (ident, kind, encode(labels))
    assert query.folded == encode([label.lower() for label in labels])
    assert (query.edns and (query.edns.size, query.edns.do)) == edns


@calm
@given(LABELS, st.lists(st.ip_addresses(v=4), max_size=80), st.integers(512, 1500))
def test_a_reply_is_what_dnslib_reads_and_never_too_long(
    labels: list[bytes], addresses: list[object], limit: int
) -> None:
    query = wire.Query(7, wire.RD, encode(labels), encode(labels).lower(), wire.A, wire.IN, None)
    rrs = tuple(wire.record(wire.A, 10, ip_address(str(a)).packed) for a in addresses)
    message = render(query, Local(rrs, (), 10, ""), limit, rrs)
    assert len(message) <= limit
    with contextlib.suppress(UnicodeDecodeError):
        for label in labels:
            label.decode()  # dnslib reads no others
        parsed = DNSRecord.parse(message)
        assert parsed.header.tc == (len(parsed.rr) < len(addresses))
        assert [str(rr.rdata) for rr in parsed.rr] == [str(a) for a in addresses][: len(parsed.rr)]


@calm
@given(st.binary(max_size=600))
def test_no_bytes_break_the_parsers(junk: bytes) -> None:
    for read in (wire.parse_query, lifetime):
        with contextlib.suppress(wire.Malformed, ValueError):
            if len(junk) >= 12:
                read(junk)
    assert fits(b"\0" * 12 + b"\0\0\1\0\1", junk) in (True, False)


@calm
@given(st.data())
def test_no_damaged_message_breaks_the_parsers(data: st.DataObject) -> None:
    record = DNSRecord.question("a.b.example", "A").reply()
    record.add_answer(*RR.fromZone("a.b.example 60 IN CNAME b.example\nb.example 60 IN A 192.0.2.1"))
    record.add_auth(*RR.fromZone("example 60 IN SOA a.example b.example 1 2 3 4 5"))
    message = bytearray(record.pack())
    for _ in range(data.draw(st.integers(1, 6))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(message[: data.draw(st.integers(12, len(message)))])
    if fits(bytes(record.pack()), cut):
        lifetime(cut)
    with contextlib.suppress(wire.Malformed):
        wire.parse_query(cut)


@calm
@given(st.ip_addresses())
def test_reverse_names_go_both_ways(address: object) -> None:
    packed = ip_address(str(address)).packed
    name = wire.reverse_name(packed)
    assert wire.show_name(name) == ip_address(str(address)).reverse_pointer + "."
    assert wire.reverse_address(name) == packed


@calm
@given(st.binary(max_size=40))
def test_only_reverse_names_are_addresses(label: bytes) -> None:
    name = encode([part for part in label.split(b".") if part])[:-1] + wire.encode_name("in-addr.arpa")
    found = wire.reverse_address(name)
    assert found is None or len(found) == 4


@calm
@given(LABELS)
def test_shown_names_are_harmless(labels: list[bytes]) -> None:
    shown = wire.show_name(encode(labels))
    assert shown.isascii() and shown.isprintable() and " " not in shown


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), ".a"])
def test_names_that_dns_cannot_carry(name: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.encode_name(name)


def test_every_split_is_tried_longest_first() -> None:
    cuts = [(wire.show_name(a), wire.show_name(b)) for a, b in wire.suffixes(wire.encode_name("a.b.c"))]
    assert cuts == [("a.b.", "c."), ("a.", "b.c.")]
    assert list(wire.suffixes(b"\1a\0")) == list(wire.suffixes(b"\0")) == []
