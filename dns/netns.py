"""Sockets inside another network namespace: it is entered just long enough to open one."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_own = -1


class Namespace:
    """A network namespace held by a descriptor, which it owns.

    After `close` nothing can be opened in it: the number of its descriptor may be another tenant's by then.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def duplicate(self) -> Namespace:
        return Namespace(os.dup(self._descriptor))

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def open_socket(self, family: int, kind: int) -> socket.socket:
        """A non-blocking socket in the namespace. Raises `OSError`."""
        if self._descriptor < 0:
            raise OSError(errno.ENETDOWN, "the sandbox is gone")
        own = _own_namespace()
        _enter(self._descriptor)
        try:
            return open_socket(family, kind)
        finally:
            try:
                _enter(own)
            except OSError:
                # going on in a container's namespace would answer one tenant's questions from another's network
                os.abort()


def open_socket(family: int, kind: int) -> socket.socket:
    """A non-blocking socket in the process's own namespace. Raises `OSError`."""
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _own_namespace() -> int:
    global _own
    if _own < 0:
        _own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return _own


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")
