"""What users ask and change about names: static records, explanations, the query log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol

from dns.client import LogEntry
from netd.core.errors import Forbidden, InvalidParameter
from netd.core.times import rfc3339
from netd.model.networks import Network, StaticRecord
from netd.model.sandboxes import Sandbox
from netd.names.resolver import Names

_DATA = {
    "A": "IPV4-ADDRESS",
    "AAAA": "IPV6-ADDRESS",
    "CNAME": "NAME",
    "SRV": "PRIORITY WEIGHT PORT NAME",
    "TXT": "",  # anything
}
_NAME = re.compile(r"[^\s;()\"\\$@]+")
_LONGEST_TTL = (1 << 31) - 1  # RFC 2181 section 8
_TXT_PART = 255  # bytes of one character-string, RFC 1035 section 3.3


class Served(Protocol):
    """A network, as the one who finds it gives it."""

    @property
    def record(self) -> Network: ...

    @property
    def predefined(self) -> bool: ...


class Networks(Protocol):
    """Who finds them. Both raise `NotFound` for what is called nothing there is."""

    def find(self, ref: str) -> Served: ...

    async def find_anywhere(self, ref: str) -> Served:
        """Also one that another host made a moment ago; `Unavailable` if that cannot be asked."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The resolver as a user sees it."""

    networks: Networks
    find_sandbox: Callable[[str], Sandbox]
    names: Names

    # ---- static records ---------------------------------------------------------------------------------

    def records(self, network: str) -> list[StaticRecord]:
        """A network's static records, by name and type."""
        found = self.names.static(self.networks.find(network).record.id)
        return sorted(found, key=lambda r: (r.name, r.type, r.data))

    async def add_record(self, network: str, given: StaticRecord) -> StaticRecord:
        """Add a static record; returns it as it is kept."""
        found = await self.networks.find_anywhere(network)
        if found.predefined:
            raise Forbidden(f"no names are served on network {found.record.name}: create a network of your own")
        checked = _checked(given)
        await self.names.add_static(found.record.id, checked, partial(self.networks.find, found.record.id))
        return checked

    async def remove_record(self, network: str, name: str, kind: str) -> None:
        """Remove a name's static records, of one type or (`kind` empty) of all."""
        await self.names.remove_static(self.networks.find(network).record.id, _folded(name), kind.upper())

    # ---- questions --------------------------------------------------------------------------------------

    async def explain(self, name: str, kind: str, ref: str) -> dict[str, Any]:
        """How a question of a container or attached namespace would be answered, and why."""
        if not name or not ref:
            raise InvalidParameter("say which name, and from which container it is asked")
        sandbox = self.find_sandbox(ref)
        if not sandbox.resolves:
            raise InvalidParameter(
                f"{sandbox.name} does not ask netd's resolver: it is on no network but the predefined ones"
            )
        told = await self.names.explain(sandbox, name, kind or "A")
        return {
            "Name": told.name,
            "Type": told.type,
            "Source": told.source,
            "Records": [" ".join(record.split(None, 4)) for record in told.records],
            "Steps": [{"Rule": s.rule, "Outcome": s.outcome, "Answers": s.answers} for s in told.steps],
        }

    def log(self, ref: str = "") -> AsyncGenerator[dict[str, Any]]:
        """The queries from now on, of one container or attached namespace or of all."""
        return self._log(self.find_sandbox(ref).id if ref else "")

    async def _log(self, sandbox_id: str) -> AsyncGenerator[dict[str, Any]]:
        async with contextlib.aclosing(self.names.follow(sandbox_id)) as entries:
            async for entry in entries:
                yield _entry(entry)


def _entry(entry: LogEntry) -> dict[str, Any]:
    return {
        "Time": rfc3339(entry.time),
        "Sandbox": entry.sandbox,
        "Container": entry.container,
        "Client": entry.client,
        "Transport": entry.transport,
        "Name": entry.name,
        "Type": entry.type,
        "Rcode": entry.rcode,
        "Source": entry.source,
        "Records": entry.records,
        "Latency": entry.latency,
    }


def _checked(given: StaticRecord) -> StaticRecord:
    """The record in its one way of writing; `InvalidParameter` for what cannot be a line of a zone file."""
    kind, data = given.type.upper(), given.data.strip()
    if not _NAME.fullmatch(given.name):
        raise InvalidParameter(f"{given.name!r} is not a name that a record can have")
    if kind not in _DATA:
        raise InvalidParameter(f"records of type {given.type!r} are not kept: use one of {', '.join(_DATA)}")
    if given.ttl is not None and not 0 <= given.ttl <= _LONGEST_TTL:
        raise InvalidParameter(f"a TTL of {given.ttl} is not a number of seconds from 0 to {_LONGEST_TTL}")
    if not (data and data.isascii() and data.isprintable()):
        raise InvalidParameter(f"{given.data!r} cannot be the data of a record")
    if kind != "TXT" and not _fits(kind, data):
        raise InvalidParameter(f"{given.data!r} is not the data of a record of type {kind}: write {_DATA[kind]}")
    return StaticRecord(
        name=_folded(given.name), type=kind, data=_quoted(data) if kind == "TXT" else data, ttl=given.ttl
    )


def _fits(kind: str, data: str) -> bool:
    try:
        if kind in ("A", "AAAA"):
            return ip_address(data).version == (4 if kind == "A" else 6)
    except ValueError:
        return False
    return len(data.split()) == len(_DATA[kind].split()) and ";" not in data


def _folded(name: str) -> str:
    return name.lower().removesuffix(".")


def _quoted(text: str) -> str:
    """TXT data as quoted character-strings; text that is not quoted yet is taken as one string."""
    if text.startswith('"'):
        return text
    parts = (text[start : start + _TXT_PART] for start in range(0, len(text), _TXT_PART))
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
