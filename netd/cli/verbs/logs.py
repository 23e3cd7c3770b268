"""`logs`: what a container wrote."""

from __future__ import annotations

from collections.abc import Iterator

from netd.cli.command import Cli, Failure, command
from netd.cli.verbs.session import frames, write_all
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.units import timestamp

_WHEN = '(e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'


@command(
    "[OPTIONS] CONTAINER",
    (1, 1),
    flags.boolean("details", "", "Show extra details provided to logs"),
    flags.boolean("follow", "f", "Follow log output"),
    flags.string("since", "", f"Show logs since timestamp {_WHEN}"),
    flags.string("tail", "n", "Number of lines to show from the end of the logs", default="all"),
    flags.boolean("timestamps", "t", "Show timestamps"),
    flags.string("until", "", f"Show logs before a timestamp {_WHEN}"),
)
def logs(cli: Cli, options: Options, arguments: list[str]) -> int:
    (name,) = arguments
    found = cli.client.get(f"/containers/{name}/json")
    query = {
        "stdout": True,
        "stderr": True,
        "since": _moment("since", options.since),
        "until": _moment("until", options.until),
        "timestamps": options.timestamps or None,
        "follow": options.follow or None,
        "details": options.details or None,
        "tail": options.tail,
    }
    pieces = cli.client.stream("GET", f"/containers/{found['Id']}/logs", query)
    if found["Config"]["Tty"]:
        for piece in pieces:
            write_all(1, piece)
    else:
        for stream, data in frames(Buffered(pieces).read_exactly):
            write_all(2 if stream == 2 else 1, data)
    return 0


def _moment(name: str, text: str) -> str:
    try:
        return timestamp(text) if text else ""
    except ValueError as error:
        raise Failure(f'invalid value for "{name}": {error}') from error


class Buffered:
    """Reads of given sizes from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read_exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data
