"""How our kernel objects are called, and how they are recognised as ours: by `ifalias`, never by memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

_PRODUCT = "netd"

# "gone": out of service and about to be deleted
Kind = Literal["network", "endpoint", "gone"]


@dataclass(frozen=True, slots=True)
class Tag:
    """The `ifalias` of a device of ours: whose it is and what it stands for."""

    owner: str
    kind: Kind
    id: str
    sandbox: str = ""

    def __str__(self) -> str:
        return f"{_PRODUCT}:{self.owner}:{self.kind}:{self.id}:{self.sandbox}"


def parse_tag(alias: str) -> Tag | None:
    """The tag in a device's alias, or None if no netd made the device."""
    match alias.split(":"):
        case [product, owner, kind, id_, sandbox] if product == _PRODUCT:
            return next((Tag(owner, known, id_, sandbox) for known in get_args(Kind) if known == kind), None)
    return None


def veth_name(endpoint_id: str) -> str:
    """The host end of an endpoint's pair: `veth` and 7 hex digits, as Docker's."""
    return "veth" + endpoint_id[:7]
