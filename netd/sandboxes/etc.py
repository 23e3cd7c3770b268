"""The three files a container reads from the daemon: hosts, hostname and resolv.conf (facts 1.74, 3.54 to 3.57)."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from netd.core import textfiles
from netd.model.sandboxes import Sandbox
from netd.names import resolvconf

log = logging.getLogger(__name__)

_HOST_FILE = Path("/etc/hosts")
_AS_IT_IS = "surrogateescape"  # what a container wrote into its own file, in whatever encoding

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


def of_host() -> str:
    """The host's own file, for containers in its network; nothing if it is absent or cannot be read."""
    try:
        return textfiles.read(_HOST_FILE)
    except FileNotFoundError:
        return ""
    except OSError as error:
        log.warning("%s cannot be read, a container in the host's network gets an empty one: %s", _HOST_FILE, error)
        return ""


def write(path: Path, text: str) -> None:
    """Replace the content and keep the inode: the file is bind-mounted into a container."""
    with path.open("r+" if path.exists() else "w", errors=_AS_IT_IS) as file:
        file.truncate()
        file.write(text)


def append(path: Path, lines: Sequence[str]) -> None:
    """Add lines at the end; whatever a user edited stays, on a line of its own."""
    if lines:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read() == b"\n" else ["", *lines]
            file.write("\n".join([*lines, ""]).encode())


def drop_addresses(path: Path, addresses: Iterable[str]) -> None:
    """Remove the lines of these addresses and nothing else."""
    gone = set(addresses)
    _edit(path, lambda line: None if line.partition("\t")[0] in gone else line)


def readdress(path: Path, line: str) -> None:
    """Give the line that has the same names this one's address; a line that is not there stays away."""
    names = line.partition("\t")[2]
    _edit(path, lambda old: line if old.partition("\t")[2] == names else old)


def drop_name(path: Path, name: str) -> None:
    """Remove the line whose first name is this one."""
    _edit(path, lambda line: None if line.partition("\t")[2].split(" ")[0] == name else line)


def _edit(path: Path, change: Callable[[str], str | None]) -> None:
    """Replace each line, or drop it. What a container made of its file is kept as it is if it is no text file."""
    try:
        lines = textfiles.read(path, errors=_AS_IT_IS).removesuffix("\n").split("\n")
    except OSError as error:
        log.warning("a container's hosts file is left as it is: %s", error)
        return
    kept = [new for line in lines if (new := change(line)) is not None]
    write(path, "\n".join([*kept, ""]))


class EtcFiles:
    """The files of one container; each keeps its inode when it is rewritten, since it is bind-mounted."""

    def __init__(self, directory: Path) -> None:
        self.hosts = directory / "hosts"
        self.hostname = directory / "hostname"
        self.resolv_conf = directory / "resolv.conf"
        self._hash = directory / "resolv.conf.hash"

    def write(self, hostname: str, hosts: str, resolv_conf: str) -> None:
        """All three, new."""
        self.hosts.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
        write(self.hostname, f"{hostname}\n")
        write(self.hosts, hosts)
        write(self.resolv_conf, resolv_conf)
        self._hash.write_text(_digest(resolv_conf))

    def rewrite_resolv_conf(self, text: str) -> None:
        """Replace it, unless a user edited it inside the container (fact 1.71)."""
        try:
            written, found = textfiles.read(self._hash), textfiles.read(self.resolv_conf)
        except OSError:  # nobody has written one, or what is there now is no resolv.conf
            return
        if written != _digest(found):
            return
        write(self.resolv_conf, text)
        self._hash.write_text(_digest(text))


def resolv_conf_text(sandbox: Sandbox, effective: resolvconf.Settings) -> str:
    """What the sandbox's resolv.conf says, by the networks it is on."""
    if not sandbox.netns:
        overridden = bool(sandbox.dns or sandbox.dns_search or sandbox.dns_options)
        return resolvconf.for_host_network(effective, overridden=overridden)
    if sandbox.resolves:
        return resolvconf.for_user_network(effective)
    return resolvconf.for_default_network(effective, ipv6=any(e.ipv6 for e in sandbox.endpoints))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
