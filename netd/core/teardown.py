"""Taking down: every step is tried, whatever happened to those before it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Teardown:
    """Collects what goes wrong in a clean-up that must not stop half-way; `subject` is what is taken down."""

    def __init__(self, subject: str) -> None:
        self.errors: list[tuple[str, Exception]] = []
        self._subject = subject

    @contextmanager
    def step(self, what: str = "") -> Iterator[None]:
        """One step; its error is kept for the end, and the next step follows."""
        try:
            yield
        except Exception as error:
            self.errors.append((what, error))

    def tell(self) -> None:
        """Say in the log what went wrong."""
        for what, error in self.errors:
            log.error("%s: could not remove its %s: %s", self._subject, what, error, exc_info=error)

    def throw(self, kind: Callable[[str], Exception]) -> None:
        """Raise one error that names all of them, if any."""
        if self.errors:
            reasons = "; ".join(str(error) for _, error in self.errors)
            raise kind(f"{self._subject} could not be cleaned up completely: {reasons}") from self.errors[0][1]
