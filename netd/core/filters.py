"""The `filters` query of list, prune and event requests (facts 2.75 and 2.84).

Values of one key are alternatives, keys must all hold, and so must all labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from netd.core import expressions
from netd.core.errors import InvalidParameter
from netd.core.times import moment

_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})
_VALUES = 1024  # of all keys: as words in the names of 1000 containers they take 0.3 s, everything else less
_REFERENCES = 128  # values of a key of which each means an object that has to be found; who means one, gives one
_decoder = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool]])


@dataclass(frozen=True, slots=True)
class Filters:
    """Parsed filters; an empty one lets everything pass."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Filters:
        """From `{"k":["v"]}` or `{"k":{"v":true}}`; `InvalidParameter` for anything else, and for very many."""
        if not text:
            return _EMPTY
        try:
            decoded = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise InvalidParameter(
                f'invalid filters {text!r}: they are a JSON object such as {{"name":["x"]}} or {{"name":{{"x":true}}}}'
            ) from None
        if sum(map(len, decoded.values())) > _VALUES:
            raise InvalidParameter(f"invalid filters: more than {_VALUES} values")
        return cls({key: frozenset(values) for key, values in decoded.items()})

    def get(self, key: str) -> frozenset[str]:
        """The values of a key; empty if it is not filtered on."""
        return self.values.get(key, frozenset())

    def references(self, key: str) -> frozenset[str]:
        """The values of a key that name objects; `InvalidParameter` if there are too many to look for."""
        wanted = self.get(key)
        if len(wanted) > _REFERENCES:
            raise InvalidParameter(f"invalid filter '{key}': more than {_REFERENCES} values")
        return wanted

    def check(self, *known: str) -> None:
        """`InvalidParameter` if a key is not among the known ones."""
        for key in self.values:
            if key not in known:
                raise InvalidParameter(f"invalid filter '{key}'")

    def exact(self, key: str, value: str) -> bool:
        """Whether one of the key's values is this one."""
        wanted = self.get(key)
        return not wanted or value in wanted

    def match(self, key: str, value: str) -> bool:
        """Whether one of the key's values is this one, or a regular expression found in it (names, ids)."""
        wanted = self.get(key)
        return not wanted or value in wanted or expressions.found(wanted, value)

    def glob(self, key: str, values: Iterable[str]) -> bool:
        """Whether one of these values is what one of the key's patterns describes (`*`, `?`, `[a-z]`)."""
        wanted = self.get(key)
        return not wanted or any(expressions.globbed(wanted, value) for value in values)

    def prefix(self, key: str, values: Iterable[str]) -> bool:
        """Whether one of these values starts with one of the key's."""
        wanted = tuple(self.get(key))
        return not wanted or any(value.startswith(wanted) for value in values)

    def labels(self, labels: Mapping[str, str]) -> bool:
        """Whether all of `label` and not all of `label!` hold; both are `key` or `key=value`."""
        unwanted = self.get("label!")
        return _have(labels, self.get("label")) and not (unwanted and _have(labels, unwanted))

    def until(self) -> Callable[[str], bool]:
        """What tells whether something created then (RFC 3339) is older than `until`, which is read here, once."""
        wanted = self.get("until")
        if not wanted:
            return lambda created: True
        if len(wanted) > 1:
            raise InvalidParameter("more than one until filter specified")
        now = time.time()
        limit = moment(next(iter(wanted)), now=now)
        return lambda created: moment(created, now=now) < limit

    def truthy(self, key: str, *, default: bool = False) -> bool:
        """The one truth value of a key: `true`, `1`, `false` or `0`."""
        wanted = self.get(key)
        if not wanted:
            return default
        if wanted <= _TRUE:
            return True
        if wanted <= _FALSE:
            return False
        raise InvalidParameter(f"invalid filter '{key}={','.join(sorted(wanted))}'")


_EMPTY = Filters()


def _have(labels: Mapping[str, str], wanted: frozenset[str]) -> bool:
    keys, pairs = _keys_and_pairs(wanted)
    return labels.keys() >= keys and labels.items() >= pairs


@lru_cache(maxsize=8)
def _keys_and_pairs(wanted: frozenset[str]) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """Taken apart once, and not for each object whose labels are looked at."""
    parts = [each.partition("=") for each in wanted]
    return (
        frozenset(key for key, equals, _ in parts if not equals),
        frozenset((key, value) for key, equals, value in parts if equals),
    )
