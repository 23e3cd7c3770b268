"""The `filters` query of list, prune and event requests (facts 2.75 and 2.84).

Values of one key are alternatives, keys must all hold, and so must all labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from netd.core import expressions
from netd.core.errors import InvalidParameter
from netd.core.times import moment

_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})
_decoder = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool]])


@dataclass(frozen=True, slots=True)
class Filters:
    """Parsed filters; an empty one lets everything pass."""

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Filters:
        """From `{"k":["v"]}` or `{"k":{"v":true}}`; `InvalidParameter` for anything else."""
        if not text:
            return _EMPTY
        try:
            decoded = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise InvalidParameter(
                f'invalid filters {text!r}: they are a JSON object such as {{"name":["x"]}} or {{"name":{{"x":true}}}}'
            ) from None
        return cls({key: frozenset(values) for key, values in decoded.items()})

    def get(self, key: str) -> frozenset[str]:
        """The values of a key; empty if it is not filtered on."""
        return self.values.get(key, frozenset())

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
        wanted = self.get(key)
        return not wanted or any(value.startswith(start) for value in values for start in wanted)

    def labels(self, labels: Mapping[str, str]) -> bool:
        """Whether all of `label` and not all of `label!` hold; both are `key` or `key=value`."""
        unwanted = self.get("label!")
        return _have(labels, self.get("label")) and not (unwanted and _have(labels, unwanted))

    def until(self, created: str) -> bool:
        """Whether something created then (RFC 3339) is older than `until`."""
        wanted = self.get("until")
        if not wanted:
            return True
        if len(wanted) > 1:
            raise InvalidParameter("more than one until filter specified")
        now = time.time()
        return moment(created, now=now) < moment(next(iter(wanted)), now=now)

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
    for each in wanted:
        key, equals, value = each.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
