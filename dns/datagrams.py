"""Many datagrams with one system call each way: recvmmsg(2) and sendmmsg(2), on buffers made once.

A datagram's place in the batch is its slot. Its reply is sent from the id that lies in the receive buffer and a
body, to the address that lies beside it: neither is turned into an object.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Any

SLOTS = 64
QUERY = 1024  # bytes; of a longer datagram the start is taken
BODY = 1280  # bytes of a reply; longer ones take the ordinary way
_NAME = 28  # sizeof(struct sockaddr_in6): enough for both families
_DONTWAIT = int(socket.MSG_DONTWAIT)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr of 64-bit Linux."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovecs", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_receive, _send = _libc.recvmmsg, _libc.sendmmsg
_receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class Datagrams:
    """Buffers for one batch; any number of sockets can use them in turn."""

    def __init__(self) -> None:
        self._in = bytearray(SLOTS * QUERY)
        self._names = bytearray(SLOTS * _NAME)
        self._out = bytearray(SLOTS * BODY)
        self._iovecs = (_Iovec * (3 * SLOTS))()
        self._incoming = (_Message * SLOTS)()
        self._outgoing = (_Message * SLOTS)()
        into, names, out = (_address(buffer) for buffer in (self._in, self._names, self._out))
        iovecs = ctypes.addressof(self._iovecs)
        for slot in range(SLOTS):
            at = 3 * slot
            self._iovecs[at] = _Iovec(into + slot * QUERY, QUERY)
            self._iovecs[at + 1] = _Iovec(into + slot * QUERY, 2)
            self._iovecs[at + 2] = _Iovec(out + slot * BODY, 0)
            name = names + slot * _NAME
            self._incoming[slot] = _Message(name, _NAME, iovecs + 16 * at, 1, None, 0, 0, 0, 0)
            self._outgoing[slot] = _Message(name, _NAME, iovecs + 16 * (at + 1), 2, None, 0, 0, 0, 0)
        self.queries = memoryview(self._in)
        # where the length of the datagram in slot n is: `lengths[16 * n + 14]`
        self.lengths = memoryview(self._incoming).cast("B").cast("I")
        self.bodies = memoryview(self._out)
        # the length of its reply's body: `body_lengths[6 * n + 5]`
        self.body_lengths = memoryview(self._iovecs).cast("B").cast("Q")
        self._first_in, self._first_out = ctypes.addressof(self._incoming), ctypes.addressof(self._outgoing)

    def receive(self, descriptor: int, most: int) -> int:
        """Take what has come, at most so many; how many it was. Raises `OSError` for anything but "none"."""
        count = int(_receive(descriptor, self._first_in, most, _DONTWAIT, None))
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return 0
            raise OSError(number, os.strerror(number))
        return count

    def client(self, slot: int) -> Any:
        """The address a datagram came from, as the socket module has it."""
        at = slot * _NAME
        (family,), (port,) = struct.unpack_from("=H", self._names, at), struct.unpack_from("!H", self._names, at + 2)
        if family == socket.AF_INET:
            return socket.inet_ntop(family, self._names[at + 4 : at + 8]), port
        (flow,), (scope,) = (
            struct.unpack_from("!I", self._names, at + 4),
            struct.unpack_from("=I", self._names, at + 24),
        )
        return socket.inet_ntop(family, self._names[at + 8 : at + 24]), port, flow, scope

    def send(self, descriptor: int, first: int, end: int) -> None:
        """Send the replies of these slots; one that cannot be sent is lost, as any datagram may be."""
        while first < end:
            sent = int(_send(descriptor, self._first_out + 64 * first, end - first, _DONTWAIT))
            first += max(sent, 0) + (sent < end - first)


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
