"""/etc/hosts of a container (facts 3.54 to 3.57): fixed names, `--add-host` entries, one line per own address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

_LOOPBACK4 = ("127.0.0.1\tlocalhost",)
_LOOPBACK6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def render(extra: Iterable[tuple[str, str]], own: Iterable[str]) -> str:
    """The whole file; `extra` are (name, address) pairs, `own` are lines made by `own_line`."""
    return "\n".join([*_LOOPBACK4, *_LOOPBACK6, *(f"{address}\t{name}" for name, address in extra), *own, ""])


def own_line(address: str, hostname: str, domainname: str = "") -> str:
    """The line that maps one of the container's addresses to its name, the short form last."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    short = full.partition(".")[0]
    return f"{address}\t{full}" if short == full else f"{address}\t{full} {short}"


def write(path: Path, text: str) -> None:
    """Replace the content and keep the inode: the file is bind-mounted into a container."""
    with path.open("r+" if path.exists() else "w") as file:
        file.truncate()
        file.write(text)


def append(path: Path, lines: Sequence[str]) -> None:
    """Add lines at the end; whatever a user edited stays."""
    if lines:
        with path.open("a") as file:
            file.write("\n".join([*lines, ""]))


def drop_addresses(path: Path, addresses: Iterable[str]) -> None:
    """Remove the lines of these addresses and nothing else."""
    gone = set(addresses)
    kept = [line for line in path.read_text().splitlines() if line.partition("\t")[0] not in gone]
    write(path, "\n".join([*kept, ""]))


def readdress(path: Path, line: str) -> None:
    """Give the line that has the same names this one's address; a line that is not there stays away."""
    names = line.partition("\t")[2]
    lines = [line if old.partition("\t")[2] == names else old for old in path.read_text().splitlines()]
    write(path, "\n".join([*lines, ""]))


def drop_name(path: Path, name: str) -> None:
    """Remove the line whose first name is this one."""
    kept = [line for line in path.read_text().splitlines() if line.partition("\t")[2].split(" ")[0] != name]
    write(path, "\n".join([*kept, ""]))
