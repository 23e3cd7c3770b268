"""Probes on the very path of the overlay: VXLAN frames to UDP port 4789 of another host, full size or small.

The kernel owns the port, so a VXLAN device of our own, with a VNI that no network gets by itself, takes them in:
what it hands up has passed both hosts' firewalls and everything between.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from drivers.kernel import make_probe_device, remove_probe_device
from drivers.spec import DriverError
from netd.core.errors import NetdError

log = logging.getLogger(__name__)

PORT = 4789  # RFC 7348, 8
VNI = 4095
DEVICE = "netd-probe"
SMALL = 128  # bytes of the inner frame

_ETHERTYPE = 0x88B5  # IEEE 802 local experimental
_ETHERNET = struct.Struct("!6s6sH")
_VXLAN = struct.Struct("!II")  # flags (0x08: the VNI is valid) and reserved; VNI and reserved
# linux/in.h, linux/in6.h: DF set whatever the kernel has learned of the path
_DISCOVER = {
    4: (socket.IPPROTO_IP, 10, 3),
    6: (socket.IPPROTO_IPV6, 23, 3),
}
_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}


class Probe:
    """Sends frames to other hosts, and tells of those that arrive: `heard(payload, whole frame's size)`."""

    def __init__(self, address: str, heard: Callable[[bytes, int], None]) -> None:
        self._address = ip_address(address)
        self._heard = heard
        self._mac = b"\x02" + secrets.token_bytes(5)
        self._taken: socket.socket | None = None

    async def open(self) -> None:
        """Make the device that takes frames in. Raises `NetdError`."""
        try:
            await asyncio.to_thread(make_probe_device, DEVICE, VNI, PORT, self._address)
            self._taken = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._taken.bind((DEVICE, _ETHERTYPE))
        except (DriverError, OSError) as error:
            raise NetdError(f"the path of overlay traffic cannot be checked: {error}") from error
        asyncio.get_running_loop().add_reader(self._taken, self._take)

    async def close(self) -> None:
        if self._taken is not None:
            asyncio.get_running_loop().remove_reader(self._taken)
            self._taken.close()
        await asyncio.to_thread(remove_probe_device, DEVICE)

    def send(self, host: str, payload: bytes, *, full: bool) -> int:
        """Send one frame, unfragmentable; the size of the outer packet, 0 if this host's kernel refused it."""
        address = ip_address(host)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        overhead = (20 if address.version == 4 else 40) + 8
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sender:
            level, option, value = _DISCOVER[address.version]
            sender.setsockopt(level, option, value)
            sender.bind((str(self._address), 0))
            try:
                sender.connect((host, PORT))
                size = sender.getsockopt(*_MTU[address.version]) - overhead if full else SMALL
                header = _VXLAN.pack(0x08 << 24, VNI << 8) + _ETHERNET.pack(b"\xff" * 6, self._mac, _ETHERTYPE)
                sender.send((header + payload).ljust(size, b"\0"))
            except OSError as error:
                log.debug("a probe to %s was not sent: %s", host, errno.errorcode.get(error.errno or 0, error))
                return 0
        return size + overhead

    def _take(self) -> None:
        assert self._taken is not None
        for _ in range(64):
            try:
                frame, sender = self._taken.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError as error:
                # the device was taken away under us; the next check will say that nothing passes
                log.warning("probes of overlay traffic cannot be received: %s", error)
                asyncio.get_running_loop().remove_reader(self._taken)
                return
            if sender[2] != socket.PACKET_OUTGOING:
                self._heard(frame[_ETHERNET.size :].rstrip(b"\0"), len(frame))
