"""Which upstreams answer: a dead one is asked last, and tried again without making anybody wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dns.upstream import Upstream

MAX_BACKOFF = 10.0  # seconds


@dataclass(slots=True)
class _State:
    failures: int = 0
    retry_at: float = 0.0


class Health:
    """The health of the upstreams asked from one namespace; times are `time.monotonic` seconds."""

    def __init__(self) -> None:
        self._states: dict[Upstream, _State] = {}

    def down(self, server: Upstream) -> bool:
        return server in self._states

    def alive(self, server: Upstream) -> None:
        """It answered, be it only an error."""
        self._states.pop(server, None)

    def silent(self, server: Upstream) -> None:
        """It let a question go unanswered while there was time."""
        state = self._states.setdefault(server, _State())
        state.failures += 1
        state.retry_at = time.monotonic() + min(MAX_BACKOFF, 2.0 ** min(state.failures - 1, 10))

    def due(self, server: Upstream) -> bool:
        """Whether a silent server should be tried again; says so once, then waits."""
        state = self._states.get(server)
        if state is None or time.monotonic() < state.retry_at:
            return False
        state.retry_at = time.monotonic() + MAX_BACKOFF
        return True

    def keep_only(self, servers: Sequence[Upstream]) -> None:
        """Forget servers that are not used any more."""
        self._states = {server: state for server, state in self._states.items() if server in servers}
