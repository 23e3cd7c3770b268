"""What could not be put right: told once, and tried again, ever more rarely, until it is right or no longer wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5  # seconds until what failed is tried again, doubled each time that something still fails
LONGEST_DELAY = 30.0


class Retries:
    """The ids of what failed. From `start` to `stop`, `retry` is called with them, in the event loop.

    What comes of it, and of every other pass, is to be told by `note`. An id that a pass over it does not report is
    done with: it is right, or nobody wants it any more.
    """

    def __init__(self, retry: Callable[[frozenset[str]], None]) -> None:
        self._retry = retry
        self._failing: dict[str, str] = {}  # id -> why, as it was told
        self._delay = FIRST_DELAY
        self._timer: asyncio.TimerHandle | None = None
        self._started = False

    def start(self) -> None:
        self._started = True
        self._plan()

    def stop(self) -> None:
        self._started = False
        self._cancel()

    def note(self, tried: Collection[str], failed: Mapping[str, str], cause: BaseException | None = None) -> None:
        """What came of a pass over `tried`; of what failed, only a reason that was not told before is told.

        `cause` is what nobody has foreseen: its traceback is told too.
        """
        reasons = [why for key, why in failed.items() if self._failing.get(key) != why]
        if failed.keys() - self._failing.keys():  # it does not have to wait as long as what has failed for hours
            self._start_over()
        self._failing = {key: why for key, why in self._failing.items() if key not in tried} | dict(failed)
        for why in dict.fromkeys(reasons):
            log.error("cannot repair, which is tried again: %s", why, exc_info=cause)
        if not self._failing:
            self._start_over()
        self._plan()

    def _start_over(self) -> None:
        self._delay = FIRST_DELAY
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        if self._started and self._failing and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._try)

    def _try(self) -> None:
        self._timer = None
        self._delay = min(2 * self._delay, LONGEST_DELAY)
        log.debug("trying again: %s", ", ".join(key[:12] or "everything" for key in self._failing))
        self._retry(frozenset(self._failing))
