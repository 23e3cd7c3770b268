"""The BPF program of the resolver as a filter on a sandbox's `lo`: attach, look, remove.

The program is loaded by the resolver process and known here by its id. The filter's classid tells it which sandbox
it runs for.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from typing import Any

from pyroute2.netlink.rtnl.tcmsg import tcmsg

from drivers import netlink
from drivers.netlink import Netlink, Request
from drivers.spec import DnsPorts, DriverError

RTM_NEWQDISC, RTM_DELQDISC = 36, 37
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
NAME = "netd-dns"
_LOOPBACK = 1  # the index of `lo` in every namespace
_CLSACT, _EGRESS = 0xFFFFFFF1, 0xFFFFFFF3  # linux/pkt_sched.h
_CLSACT_HANDLE = 0xFFFF0000
_PRIORITY = 11  # of our filter: those of others may come before it and after it
_HANDLE = 1
_ETH_P_ALL = 3
_DIRECT_ACTION = 1  # linux/pkt_cls.h: TCA_BPF_FLAG_ACT_DIRECT
_TCMSG = struct.Struct("=BxxxiIII")
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_CLASSID, _TCA_BPF_NAME, _TCA_BPF_ID = 3, 7, 11
_INFO = _PRIORITY << 16 | ((_ETH_P_ALL & 0xFF) << 8)  # the protocol is in network byte order

_lib: ctypes.CDLL | None = None


def ensure(inner: Netlink, ports: DnsPorts) -> bool:
    """Have the program run on `lo`; whether it did not. Raises `DriverError`."""
    if find(inner) == (ports.program, ports.number):
        return False
    descriptor = _program(ports.program)
    try:
        inner.run((_qdisc(), _filter(descriptor, ports.number)))
    finally:
        os.close(descriptor)
    return True


def remove(inner: Netlink) -> bool:
    """Take our filter away; whether it was there. The qdisc stays: it may be somebody else's too."""
    if find(inner) is None:
        return False
    message = _message(_EGRESS, _HANDLE, _INFO)
    message["attrs"] = [("TCA_KIND", "bpf")]
    gone = frozenset({errno.ENOENT, errno.EINVAL})
    inner.run((Request(RTM_DELTFILTER, 0, message, "remove the resolver's filter", gone),))
    return True


def find(inner: Netlink) -> tuple[int, int] | None:
    """Id of the program that runs on `lo` and number of the sandbox it runs for; None if there is no such filter."""
    for body in inner.ask(_question()):
        _, _, handle, _, info = _TCMSG.unpack_from(body)
        options = netlink.attributes(netlink.attributes(body, _TCMSG.size).get(_TCA_OPTIONS, b""), 0)
        if handle == _HANDLE and info == _INFO and options.get(_TCA_BPF_NAME, b"").rstrip(b"\0") == NAME.encode():
            program, number = options.get(_TCA_BPF_ID, bytes(4)), options.get(_TCA_BPF_CLASSID, bytes(4))
            return int.from_bytes(program, "little"), int.from_bytes(number, "little")
    return None


def _program(identity: int) -> int:
    """A descriptor of a loaded program; the caller closes it."""
    global _lib
    if _lib is None:
        try:
            _lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError:
            raise DriverError("libbpf is missing: install the package libbpf1") from None
    descriptor = int(_lib.bpf_prog_get_fd_by_id(ctypes.c_uint32(identity)))
    if descriptor < 0:
        raise DriverError(f"the resolver's program {identity} is not in the kernel: {os.strerror(-descriptor)}")
    return descriptor


def _message(parent: int, handle: int, info: int) -> Any:
    message = tcmsg()
    message["index"], message["parent"], message["handle"], message["info"] = _LOOPBACK, parent, handle, info
    return message


@functools.cache
def _question() -> Request:
    """Kept, as encoding it takes longer than the kernel's answer."""
    nothing = frozenset({errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP})  # as long as there is no qdisc
    return Request(RTM_GETTFILTER, netlink.NLM_F_DUMP, _message(_EGRESS, 0, 0), "list filters", nothing)


@functools.cache
def _qdisc() -> Request:
    message = _message(_CLSACT, _CLSACT_HANDLE, 0)
    message["attrs"] = [("TCA_KIND", "clsact")]
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    return Request(RTM_NEWQDISC, flags, message, "have filters on lo", frozenset({errno.EEXIST}))


def _filter(program: int, number: int) -> Request:
    message = _message(_EGRESS, _HANDLE, _INFO)
    options = [
        ("TCA_BPF_CLASSID", number),
        ("TCA_BPF_FD", program),
        ("TCA_BPF_NAME", NAME),
        ("TCA_BPF_FLAGS", _DIRECT_ACTION),
    ]
    message["attrs"] = [("TCA_KIND", "bpf"), ("TCA_OPTIONS", {"attrs": options})]
    return Request(RTM_NEWTFILTER, netlink.NLM_F_CREATE, message, "attach the resolver's filter")
