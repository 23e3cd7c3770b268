"""Telling systemd how the daemon is doing: the protocol of sd_notify(3), one datagram."""

from __future__ import annotations

import os
import socket

# taken out of the environment: a runtime that inherits it (crun, runc) would wait for the container to notify
_ADDRESS = os.environ.pop("NOTIFY_SOCKET", "")


def notify(state: str) -> None:
    """Send `READY=1`, `RELOADING=1`, `STOPPING=1`...; does nothing when no service manager listens."""
    address = _ADDRESS
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
