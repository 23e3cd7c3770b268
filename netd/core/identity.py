"""What objects are called, and how they are found by what a user types: an id, a name, a unique prefix of an id."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import TypeVar

from netd.core.errors import InvalidParameter, NotFound

T = TypeVar("T")

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ADJECTIVES = (
    "amber brave brisk calm clever coral crisp dapper eager early fair fleet gentle glad golden hardy "
    "jolly keen kind light lively lucid mellow merry neat nimble placid proud quick quiet ready silver "
    "sober solid steady sunny swift tidy vivid warm"
).split()
_NOUNS = (
    "alder aspen badger beacon birch bridge brook cedar comet cove crane delta dune ember falcon fern "
    "finch fjord harbor hazel heron island lantern larch maple marsh meadow otter pebble pine plover "
    "reef ridge river robin sparrow spruce tern willow wren"
).split()


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


def check_name(name: str) -> None:
    """Docker's rule for container names."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def random_name() -> str:
    """A name for a container whose user gave none."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
