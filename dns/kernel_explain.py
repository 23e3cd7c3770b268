"""Why the kernel answers a question, or leaves it to the resolver: looked up in the maps as `kernel.bpf.c` does."""

from __future__ import annotations

from collections.abc import Mapping

from dns import kernel_layout as layout
from dns.bpf import Map
from dns.kernel_layout import Key, Kind, Table


def explain(maps: Mapping[str, Map], sandbox: int, name: bytes, kind: int) -> str:
    """For the sandbox of this number, a name in wire form and lower case, and a record type."""
    if len(name) > layout.NAME:
        return "left to the resolver: the name is long"
    value = maps["netd_sandboxes"].get(layout.NUMBER.pack(sandbox))
    if value is None:
        return "left to the resolver: the sandbox has no entry"
    for number, table in layout.search(value):
        key = Key(number, table, name).pack()
        if key is not None and (found := maps["netd_names"].get(key)) is not None:
            return _explain_value(maps, found, kind)
        if table != Table.LINKS and _is_open(maps, number):
            return "left to the resolver: a network has wildcards"
    return "left to the resolver: no such name"


def _explain_value(maps: Mapping[str, Map], value: bytes, kind: int) -> str:
    if layout.kind_of(value) == Kind.LINK:
        target = maps["netd_names"].get(layout.link_target(value))
        if target is None or layout.kind_of(target) != Kind.ADDRESSES:
            return "left to the resolver: a link to a name that is not there"
        value = target
    if layout.answers(value, kind):
        return "answers, without asking the resolver"
    return "left to the resolver: the name has records of other kinds, or many"


def _is_open(maps: Mapping[str, Map], number: int) -> bool:
    value = maps["netd_tables"].get(layout.NUMBER.pack(number))
    return value is None or layout.is_open(value)
