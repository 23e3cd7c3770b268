"""API versions: the `/v1.NN` before a path, and which ones are served (fact 2.4)."""

from __future__ import annotations

import re

from netd.core.errors import InvalidParameter

Version = tuple[int, ...]

MINIMUM: Version = (1, 24)
MAXIMUM: Version = (1, 48)

_PREFIX = re.compile(r"/v([0-9.]+)(?=/)")


def told(version: Version) -> str:
    """`(1, 48)` as clients write it."""
    return ".".join(map(str, version))


def split(path: str) -> tuple[str, str]:
    """`/v1.41/networks` as `1.41` and `/networks`; without a version the first is empty."""
    found = _PREFIX.match(path)
    return (found[1], path[found.end() :]) if found else ("", path)


def accept(text: str) -> Version:
    """The version a client asked for, the newest if it named none; `InvalidParameter` if it is not served."""
    if not text:
        return MAXIMUM
    version = tuple(int(part) for part in text.split(".") if part)
    if version > MAXIMUM:
        raise InvalidParameter(f"client version {text} is too new. Maximum supported API version is {told(MAXIMUM)}")
    if version < MINIMUM:
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is {told(MINIMUM)}, "
            "please upgrade your client to a newer version"
        )
    return version
