"""How a verb gives up."""

from __future__ import annotations


class Failure(Exception):
    """Ends the verb with `status`; `message`, if any, goes to stderr as it is."""

    def __init__(self, message: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
