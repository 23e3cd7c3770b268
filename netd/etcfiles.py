"""The three files a container reads from the daemon: hosts, hostname and resolv.conf (fact 1.74)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from netd import hostsfile
from netd.core import textfiles
from netd.model.sandboxes import Sandbox
from netd.names import resolvconf


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
        hostsfile.write(self.hostname, f"{hostname}\n")
        hostsfile.write(self.hosts, hosts)
        hostsfile.write(self.resolv_conf, resolv_conf)
        self._hash.write_text(_digest(resolv_conf))

    def rewrite_resolv_conf(self, text: str) -> None:
        """Replace it, unless a user edited it inside the container (fact 1.71)."""
        try:
            written, found = textfiles.read(self._hash), textfiles.read(self.resolv_conf)
        except OSError:  # nobody has written one, or what is there now is no resolv.conf
            return
        if written != _digest(found):
            return
        hostsfile.write(self.resolv_conf, text)
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
