"""Times as Docker's API writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def timestamp() -> str:
    """Now, RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def rfc3339(seconds: float) -> str:
    """A time in seconds since the epoch, RFC 3339 with microseconds, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def unix_seconds(text: str) -> float:
    """Seconds since the epoch of a time written by `timestamp`."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(head).replace(tzinfo=UTC).timestamp()
    return whole + float(f"0.{fraction or 0}")
