"""Sizes and times as people read and write them: `1.99MB`, `2 minutes ago`, `512m`, `1h30m`."""

from __future__ import annotations

import re
import time

_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?")


def human_duration(seconds: float) -> str:
    """How long, in one rough unit, as Docker says it."""
    seconds = int(seconds)
    if seconds < 1:
        return "Less than a second"
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 60:
        return f"{seconds} second{'s' * (seconds != 1)}"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, unit, name in ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks")):
        if hours < limit:
            return f"{hours // unit} {name}"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{int(seconds / 3600) // (24 * 365)} years"


def human_size(size: float, digits: int = 3) -> str:
    """Bytes in decimal units with `digits` significant digits."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    step = 0
    while size >= 1000 and step < len(units) - 1:
        size /= 1000
        step += 1
    return f"{size:.{digits}g}{units[step]}"


def parse_bytes(text: str) -> int:
    """`512m` -> 536870912: binary units, as for memory; raises ValueError."""
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(found[1]) * 1024 ** " kmgtp".index((found[2] or " ").lower()))


def parse_cpus(text: str) -> int:
    """`1.5` CPUs -> 1500000000 billionths; raises ValueError."""
    from fractions import Fraction

    try:
        billionths = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if billionths.denominator != 1:
        raise ValueError("value is too precise")
    return int(billionths)


def parse_duration(text: str) -> float:
    """Go's durations (`1h30m`, `1.5s`) in seconds; raises ValueError."""
    sign = -1.0 if text.startswith("-") else 1.0
    bare = text.lstrip("+-")
    if bare == "0":
        return 0.0
    parts = _DURATION.findall(bare)
    if not parts or "".join(number + unit for number, unit in parts) != bare:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in parts)


def timestamp(text: str, now: float | None = None) -> str:
    """A moment for the API (`1136073845.000000001`) from a duration ago, a date, a time, or a number."""
    try:
        moment = (time.time() if now is None else now) - parse_duration(text)
        return f"{moment:.9f}" if moment % 1 else str(int(moment))
    except ValueError:
        pass
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        return text
    from datetime import datetime

    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None
    return f"{int(parsed.timestamp())}.{parsed.microsecond * 1000:09d}"


def created_at(seconds: float) -> str:
    """`2026-11-23 21:00:42 +0000 UTC`, in local time."""
    local = time.localtime(seconds)
    zone = time.strftime("%z %Z", local)
    return time.strftime("%Y-%m-%d %H:%M:%S ", local) + zone


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since 1970 in local time, with nine decimals."""
    local = time.localtime(nanoseconds // 10**9)
    zone = time.strftime("%z", local)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds % 10**9:09d}{shown}"
