"""The kernel's numbers for other network namespaces: events from a namespace are heard once it has one."""

from __future__ import annotations

import errno
import os
import struct

from drivers.netlink import NLM_F_ACK, Netlink, Request, attributes

# linux/rtnetlink.h, linux/net_namespace.h
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NSID, _FD = 1, 3
_ANY = 0xFFFFFFFF
_ATTRIBUTE = struct.Struct("=HHI")
_NO_HEADER_YET, _RTGENMSG = bytes(16), bytes(4)


class _Message:
    def __init__(self, *attrs: tuple[int, int]) -> None:
        self.data = _NO_HEADER_YET + _RTGENMSG + b"".join(_ATTRIBUTE.pack(8, kind, value) for kind, value in attrs)


def number(connection: Netlink, path: str) -> int:
    """The number that the connection's namespace has for the one at `path`; the first question gives it one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = _number(connection, descriptor)
        if found < 0:
            subject = f"number network namespace {path}"
            message = _Message((_NSID, _ANY), (_FD, descriptor))
            connection.run([Request(_RTM_NEWNSID, NLM_F_ACK, message, subject, frozenset({errno.EEXIST}))])
            found = _number(connection, descriptor)
        return found
    finally:
        os.close(descriptor)


def _number(connection: Netlink, descriptor: int) -> int:
    question = Request(_RTM_GETNSID, 0, _Message((_FD, descriptor)), "ask for the number of a network namespace")
    (body,) = connection.ask(question)
    return int(struct.unpack("=i", attributes(body, len(_RTGENMSG))[_NSID])[0])
