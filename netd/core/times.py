"""Times as Docker's API writes them, and points in time as its clients do: `1700000000.5`, a date, or `10m` ago."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from netd.core.errors import InvalidParameter

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FRACTION = re.compile(r"\.(\d{1,9})\d*")


def timestamp(nanoseconds: int | None = None) -> str:
    """A time in nanoseconds since the epoch, or now: RFC 3339 with nine digits of fraction, in UTC."""
    seconds, fraction = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def rfc3339(seconds: float) -> str:
    """A time in seconds since the epoch, to the microsecond: what a float can tell."""
    return timestamp(round(seconds * 1e6) * 1000)


def unix_seconds(text: str) -> float:
    """Seconds since the epoch of a time written by `timestamp`."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(head).replace(tzinfo=UTC).timestamp()
    return whole + float(f"0.{fraction or 0}")


def duration(text: str) -> float | None:
    """Go's durations (`1h30m`, `-1.5s`) in seconds; None for what is none."""
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def moment(text: str, *, now: float) -> float:
    """Seconds since the epoch; `InvalidParameter` for anything that is none of the three forms."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if (ago := duration(text)) is not None:
        return now - ago
    try:
        parsed = datetime.fromisoformat(_FRACTION.sub(lambda f: f".{f[1][:6]:0<6}", text))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidParameter(
            f"invalid time {text!r}: give seconds since the epoch, a duration such as 10m, "
            "or a date such as 2026-01-02T03:04:05Z"
        ) from None
