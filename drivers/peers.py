"""The endpoints of a network on other hosts, as rows of its VXLAN devices.

Two peers may for a moment claim the same MAC or address, when an endpoint moves: the one that was put last has
the row, and when it goes, the other has it again. What a local endpoint has, no peer has a row for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drivers.neighbours import Forward, Neighbour, Row
from drivers.netlink import IPAddress
from drivers.spec import Peer

Key = tuple[int, str | IPAddress]  # VNI, and what the row is looked up by


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows to write and rows to delete, each with its VNI."""

    put: frozenset[tuple[int, Row]]
    gone: frozenset[tuple[int, Row]]


_NOTHING = Changes(frozenset(), frozenset())


def _difference(old: dict[Key, Row], new: dict[Key, Row]) -> Changes:
    return Changes(
        put=frozenset((key[0], row) for key, row in new.items() if old.get(key) != row),
        gone=frozenset((key[0], row) for key, row in old.items() if key not in new),
    )


class Peers:
    """What is desired. `complete` once the whole set was told: before, an unknown row is no stray one."""

    def __init__(self, *, complete: bool = False) -> None:
        self.complete = complete
        self._peers: dict[str, tuple[int, Peer]] = {}
        self._claims: dict[Key, list[str]] = {}  # peer ids, the last one has the row
        self._local: dict[str, set[Key]] = {}  # endpoint id -> what it has

    def put(self, vni: int, peer: Peer) -> Changes:
        """Add a peer, or change the one with its id."""
        return self._change(peer.id, (vni, peer))

    def remove(self, peer_id: str) -> Changes:
        return self._change(peer_id, None)

    def claim(self, vni: int, endpoint_id: str, values: Iterable[str | IPAddress]) -> Changes:
        """A local endpoint has these, whatever peers say."""
        keys = {(vni, value) for value in values}
        return self._change_local(endpoint_id, keys) if self._local.get(endpoint_id) != keys else _NOTHING

    def release(self, endpoint_id: str) -> Changes:
        return self._change_local(endpoint_id, set()) if endpoint_id in self._local else _NOTHING

    def renewed(self) -> Peers:
        """The same local endpoints, and no peers: the whole set is about to be told."""
        fresh = Peers(complete=True)
        fresh._local = self._local
        return fresh

    def rows(self, vni: int) -> set[Row]:
        return {row for key in self._claims if key[0] == vni and (row := self._row(key)) is not None}

    def _change(self, peer_id: str, after: tuple[int, Peer] | None) -> Changes:
        before = self._peers.get(peer_id)
        keys = _keys(before) | _keys(after)
        old = {key: row for key in keys if (row := self._row(key)) is not None}
        for key in _keys(before):
            self._claims[key].remove(peer_id)
        self._peers.pop(peer_id, None)
        if after is not None:
            self._peers[peer_id] = after
        for key in _keys(after):
            self._claims.setdefault(key, []).append(peer_id)
        new = {key: row for key in keys if (row := self._row(key)) is not None}
        for key in keys:
            if not self._claims[key]:
                del self._claims[key]
        return _difference(old, new)

    def _change_local(self, endpoint_id: str, keys: set[Key]) -> Changes:
        touched = keys | self._local.get(endpoint_id, set())
        old = {key: row for key in touched if (row := self._row(key)) is not None}
        if keys:
            self._local[endpoint_id] = keys
        else:
            del self._local[endpoint_id]
        new = {key: row for key in touched if (row := self._row(key)) is not None}
        return _difference(old, new)

    def _row(self, key: Key) -> Row | None:
        claims = self._claims.get(key)
        if not claims or any(key in keys for keys in self._local.values()):
            return None
        peer = self._peers[claims[-1]][1]
        value = key[1]
        return Forward(value, peer.vtep) if isinstance(value, str) else Neighbour(value, peer.mac)


def _keys(known: tuple[int, Peer] | None) -> set[Key]:
    if known is None:
        return set()
    vni, peer = known
    return {(vni, value) for value in (peer.mac, *peer.addresses)}
