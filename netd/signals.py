"""Signals as users write them."""

from __future__ import annotations

import signal

from netd.errors import InvalidParameter


def signal_number(text: str) -> int:
    """`SIGTERM`, `term`, `15` or `RTMIN+3` to its number."""
    name = text.strip().upper()
    if name.isdecimal() and 0 < int(name) < signal.NSIG:
        return int(name)
    base, _, offset = name.removeprefix("SIG").partition("+")
    found = getattr(signal, f"SIG{base}", None)
    if isinstance(found, signal.Signals) and (not offset or offset.isdecimal()):
        return int(found) + int(offset or 0)
    raise InvalidParameter(f"invalid signal: {text}")
