"""Finding an object by what a user types: its id, its name, or a unique prefix of its id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from netd.errors import InvalidParameter, NotFound

T = TypeVar("T")


def by_reference(ref: str, items: Mapping[str, T], name: Callable[[T], str], kind: str) -> T:
    """Full id, then exact name, then unique id prefix (fact 2.67); `NotFound` or `InvalidParameter` otherwise."""
    if ref in items:
        return items[ref]
    for item in items.values():
        if name(item) == ref:
            return item
    found = [item for key, item in items.items() if ref and key.startswith(ref)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidParameter(f"{kind} {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
    raise NotFound(f"No such container: {ref}" if kind == "container" else f"{kind} {ref} not found")
