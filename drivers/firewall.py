"""Our nftables table in the kernel: brought from what it holds to what it should hold, one transaction a time.

A drop in somebody else's base chain cannot be overruled: where another table's forward policy is drop (Docker
sets one when it turns forwarding on), its owner must admit our bridges there. `closed_by` tells of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from drivers import ruleset
from drivers.nft import FirewallRefused, Nft
from drivers.ruleset import Elements

log = logging.getLogger(__name__)


class Firewall:
    """The projection of every object's elements into our table. Lives in one worker thread."""

    def __init__(self) -> None:
        self._nft = Nft()
        self._objects: dict[str, Elements] = {}
        self._present: Elements | None = None  # None: not known, so the whole table is written
        self._rules: list[str] = []

    def close(self) -> None:
        self._nft.close()

    def put(self, object_id: str, wanted: Elements) -> None:
        """Give an object exactly these elements; none to forget it.

        One transaction, as large as the difference. Raises FirewallRefused with nothing changed.
        """
        before = self._objects.get(object_id, {})
        if self._present is not None and before == wanted:
            return
        objects = {key: value for key, value in self._objects.items() if key != object_id}
        if wanted:
            objects[object_id] = wanted
        if self._present is None:
            self.replace(objects)
            return
        removed, added = _difference(before, wanted, self._present)
        transaction = ruleset.change(removed, added)
        try:
            if transaction:
                self._nft.run(transaction)
        except FirewallRefused as refusal:
            self.replace(objects)
            log.warning("the nftables table was written anew, as a change to it failed: %s", refusal)
            return
        for name, gone in removed.items():
            for key in gone:
                del self._present[name][key]
        for name, new in added.items():
            self._present[name].update(new)
        self._objects = objects

    def replace(self, objects: Mapping[str, Elements]) -> None:
        """Write the whole table anew, in one transaction."""
        wanted = ruleset.merged(objects.values())
        self._nft.run(ruleset.whole_table(wanted))
        self._objects, self._present = dict(objects), wanted
        self._rules = self._listed_rules()

    def ensure(self, objects: Mapping[str, Elements]) -> bool:
        """Make the table hold exactly these objects' elements; whether anything had to be put right.

        Raises FirewallRefused. What was there before and is wanted is put right also then.
        """
        known = [key for key in self._objects if key in objects]
        try:
            # in the order they were put: of two that claim an element the last one has it
            return self._ensure({key: objects[key] for key in known} | dict(objects))
        except FirewallRefused:
            if known:
                self._ensure({key: self._objects[key] for key in known})
            raise

    def _ensure(self, objects: Mapping[str, Elements]) -> bool:
        wanted = ruleset.merged(objects.values())
        if self._present is None and self._is_as_we_write(wanted):
            self._present, self._rules = wanted, self._listed_rules()
        if self._present == wanted and self._intact():
            self._objects = dict(objects)
            return False
        self.replace(objects)
        return True

    def closed_by(self) -> list[str]:
        """The chains of others that forward nothing but what they know."""
        chains = [thing["chain"] for thing in self._nft.listing("list chains") if "chain" in thing]
        closed = [chain for chain in chains if (chain.get("hook"), chain.get("policy")) == ("forward", "drop")]
        return [f"{chain['family']} {chain['table']} {chain['name']}" for chain in closed]

    def _intact(self) -> bool:
        try:
            return self._listed_rules() == self._rules and self._listed_elements() == _unquoted(self._present or {})
        except FirewallRefused:
            return False

    def _is_as_we_write(self, wanted: Elements) -> bool:
        """Whether a daemon before us left the table that we would write.

        How nftables spells our rules back is not known until it did: so they are listed from a dormant table.
        """
        try:
            listed, elements = self._listed_rules(), self._listed_elements()
            self._nft.run(ruleset.dormant_table())
            try:
                model = [line for line in self._listed_rules(ruleset.MODEL) if line.strip() != "flags dormant"]
            finally:
                self._nft.run(ruleset.without(ruleset.MODEL))
        except FirewallRefused:
            return False
        return listed == model and elements == _unquoted(wanted)

    def _listed_rules(self, table: str = ruleset.TABLE) -> list[str]:
        """The lines of a table but for its name; JSON is made of freed memory if it has flags (libnftables 1.0.6)."""
        return [line for line in self._nft.text(f"list table {table}").splitlines()[1:] if line.strip()]

    def _listed_elements(self) -> Elements:
        found: Elements = {}
        for thing in self._nft.listing(f"list table {ruleset.TABLE}"):
            body = thing.get("set") or thing.get("map")
            if body:
                found[body["name"]] = dict(_element(entry) for entry in body.get("elem", ()))
        return found


def _difference(before: Elements, wanted: Elements, present: Elements) -> tuple[Elements, Elements]:
    """What to take out of and put into the table when an object's elements change from `before` to `wanted`.

    An element another object has taken over meanwhile stays; one that another object holds is taken over.
    """
    removed: Elements = {}
    added: Elements = {}
    for name in before.keys() | wanted.keys():
        old, new, there = before.get(name, {}), wanted.get(name, {}), present[name]
        gone = {key: value for key, value in old.items() if new.get(key) != value and there.get(key) == value}
        fresh = {key: value for key, value in new.items() if there.get(key) != value or key in gone}
        gone |= {key: there[key] for key in fresh if key in there}
        removed[name], added[name] = gone, fresh
    return removed, added


def _unquoted(elements: Elements) -> Elements:
    """nftables' JSON has device names without the quotes that its text needs."""
    return {name: {key.replace('"', ""): value for key, value in content.items()} for name, content in elements.items()}


def _element(entry: Any) -> tuple[str, str]:
    if isinstance(entry, list):
        return _spelled(entry[0]), _spelled(entry[1])
    return _spelled(entry), ""


def _spelled(value: Any) -> str:
    """nftables' JSON of a value in the spelling of `ruleset`."""
    match value:
        case {"concat": parts}:
            return " . ".join(_spelled(part) for part in parts)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
    return str(value)
