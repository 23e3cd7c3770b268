"""How a sandbox's unknown names are forwarded: resolv.conf(5) options turned into times and an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEADLINE = 4.5  # seconds: a stub resolver waits 5
HEDGE = 0.8  # seconds without a reply until the next server is asked as well
MAX_SERVERS = 3  # as resolv.conf has it (fact 1.46)


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits for one question. Times in seconds."""

    deadline: float = DEADLINE
    attempts: int = 2  # times each server is asked
    rotate: bool = False
    ndots: bool = False  # the user set ndots: single-label names are left to the client's search list (fact 1.57)

    def gap(self, servers: int) -> float:
        """How long to wait for a server before the next one is asked."""
        return min(HEDGE, self.deadline / max(1, servers * self.attempts))


def policy(options: Sequence[str]) -> Policy:
    """Read resolv.conf options; what is unknown or malformed is ignored (fact 1.59)."""
    values = dict(option.partition(":")[::2] for option in options)
    timeout = _number(values.get("timeout"), 5, 1, 30)
    return Policy(
        # the client gives up after `timeout`; our answer, if only SERVFAIL, has to be there by then
        deadline=min(DEADLINE, timeout * 0.9),
        attempts=_number(values.get("attempts"), 2, 1, 5),
        rotate="rotate" in values,
        ndots=_number(values.get("ndots"), 0, 0, 15) > 0,
    )


def _number(text: str | None, default: int, least: int, most: int) -> int:
    if text is None or not text.isdecimal():
        return default
    return min(most, max(least, int(text)))
