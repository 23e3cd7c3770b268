"""Points in time as Docker's clients write them: `1700000000.5`, `2026-01-02T03:04:05Z`, or `10m` for "so long ago"."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from netd.errors import InvalidParameter

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FRACTION = re.compile(r"\.(\d{1,9})\d*")


def moment(text: str, *, now: float) -> float:
    """Seconds since the epoch; `InvalidParameter` for anything that is none of the three forms."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        return now + seconds if text.startswith("-") else now - seconds
    try:
        parsed = datetime.fromisoformat(_FRACTION.sub(lambda f: f".{f[1][:6]:0<6}", text))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidParameter(
            f"invalid time {text!r}: give seconds since the epoch, a duration such as 10m, "
            "or a date such as 2026-01-02T03:04:05Z"
        ) from None
