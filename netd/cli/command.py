"""What a verb is: its function with usage, flags and argument count; and what it is given to work with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from netd.cli.words.failure import Failure
from netd.cli.words.flags import Flag, Options

if TYPE_CHECKING:
    from netd.client.api import Client

__all__ = ["Arity", "Cli", "Command", "Failure", "Run", "arity_error", "command"]


class Arity(NamedTuple):
    """How many arguments a verb takes; `high` is None for any number."""

    low: int
    high: int | None


class Cli:
    """One invocation: the daemon's address, its client (connected on first use), and the verb's path."""

    def __init__(self, host: str, path: str, connect: Callable[[], Client]) -> None:
        self.host = host
        self.path = path  # as in "netd network ls"
        self._connect = connect
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def print(self, text: Any) -> None:
        sys.stdout.write(f"{text}\n")

    def warn(self, text: Any) -> None:
        sys.stdout.flush()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def each(self, names: Sequence[str], act: Callable[[str], Any], *, quiet: bool = False) -> int:
        """Does `act` for every name, printing the name or the error; 1 if any failed."""
        from netd.client.api import ApiError, Unreachable

        status = 0
        for name in names:
            try:
                act(name)
            except (ApiError, Unreachable) as error:
                self.warn(error)
                status = 1
            else:
                if not quiet:
                    self.print(name)
        return status


Run = Callable[[Cli, Options, list[str]], int]


class Command(NamedTuple):
    run: Run
    usage: str
    arity: Arity
    flags: tuple[Flag, ...]
    interspersed: bool  # flags may stand after the first argument


def command(
    usage: str, arity: tuple[int, int | None], *flags: Flag, interspersed: bool = True
) -> Callable[[Run], Command]:
    """Makes a function a verb. The registry says under which names, and with which summary."""
    return lambda run: Command(run, usage, Arity(*arity), flags, interspersed)


def arity_error(path: str, command: Command, given: int) -> str | None:
    """What to tell a user who gave the wrong number of arguments; None if it is right."""
    low, high = command.arity
    if low <= given and (high is None or given <= high):
        return None
    if high == 0:
        need, see = "accepts no arguments", "Run"
    elif low == high:
        need, see = f"requires {low} argument{'s' * (low != 1)}", "Run"
    elif high is not None:
        need, see = (
            (
                f"requires at least {low} and at most {high} arguments"
                if low
                else f"requires at most {high} argument{'s' * (high != 1)}"
            ),
            "Run",
        )
    else:
        need, see = f"requires at least {low} argument{'s' * (low != 1)}", "See"
    return f"netd: '{path}' {need}\n\nUsage:  {path} {command.usage}\n\n{see} '{path} --help' for more information"
