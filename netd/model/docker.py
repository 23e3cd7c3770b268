"""What all objects of the Docker Engine API share. Field names are Docker's.

Decoding is strict about types and lenient about unknown fields, as Docker is.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

# a command line: Docker takes a lone string for its only word
Words = Annotated[list[str], Meta(extra={"lone_string": True})]


def _docker_name(name: str) -> str:
    """`enable_icc` -> `EnableIcc`, with Docker's spelling of acronyms."""
    special = {"ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "ipam": "IPAM", "dns": "Dns", "tty": "Tty"}
    return "".join(special.get(part, part.capitalize()) for part in name.split("_"))


class Docker(Struct, rename=_docker_name, kw_only=True, frozen=True):
    """Base of everything that has Docker's field names in JSON. A change makes a new object (`replace`)."""
