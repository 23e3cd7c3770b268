"""Kernel events: what changed in this namespace, and in the sandboxes' next to it, since the last look.

One socket hears every namespace that has a veth end in ours (NETLINK_LISTEN_ALL_NSID); no socket a sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from drivers import neighbours, netlink, resolver_filter
from drivers.netlink import SOL_NETLINK, attributes, messages

_NETLINK_NETFILTER = 12
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8  # linux/netlink.h
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_BUFFER = 8 << 20  # bytes; a transaction of 5,000 elements is announced element by element
# linux/rtnetlink.h: RTNLGRP_LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_ROUTE_GROUPS = (1, 3, 4, 5, 7, 9, 11)
_NFTABLES_GROUP, _NFTABLES_SUBSYSTEM, _NEW_GENERATION = 7, 10, 15
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _RTA_OIF = 3, 4, 10, 4
_TABLE_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE... are all attribute 1


@dataclass(frozen=True, slots=True)
class Change:
    """Something that may have undone desired state.

    `device` is one of the namespace `nsid`, which is ours if that is -1; elsewhere it is set only where a device
    itself has changed. `row`: it was a row of a forwarding or neighbour table, `written`: that is there now. `mtu`:
    a device of ours that is in place has this. `table`: it was an nftables table of ours. Nothing set: events were
    lost, anything may have changed.
    """

    device: str = ""
    nsid: int = -1
    table: str = ""
    row: bool = False
    written: bool = False
    mtu: int = 0


class Events:
    """Sockets of the network namespace the calling thread is in when it opens them."""

    def __init__(self) -> None:
        self.route = _listener(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
        _leave_out_learned_rows(self.route)
        self.netfilter = _listener(_NETLINK_NETFILTER, (_NFTABLES_GROUP,))

    def close(self) -> None:
        self.route.close()
        self.netfilter.close()

    def drain(self) -> set[Change]:
        """All suspicious changes since the last call. Never waits."""
        found: set[Change] = set()
        for listener, read in ((self.route, _route_change), (self.netfilter, _table_change)):
            for kind, body, nsid in _received(listener, found):
                change = read(kind, body, nsid)
                if change is not None:
                    found.add(change)
        return found


def _listener(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    listener = socket.socket(socket.AF_NETLINK, flags, protocol)
    with contextlib.suppress(PermissionError):  # inside a user namespace the default size has to do
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    listener.setsockopt(SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    listener.bind((0, 0))
    for group in groups:
        listener.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return listener


def _leave_out_learned_rows(listener: socket.socket) -> None:
    """Let the kernel drop new neighbours that are not static, so that containers that talk to each other do not
    wake us."""
    kind, static = neighbours.RTM_NEWNEIGH, neighbours.NUD_PERMANENT | neighbours.NUD_NOARP
    # struct sock_filter (linux/filter.h); loads are big-endian
    steps = (
        (0x28, 0, 0, 4),  # load nlmsg_type
        (0x15, 0, 2, socket.htons(kind)),  # another type: accept
        (0x28, 0, 0, 24),  # load ndm_state
        (0x45, 0, 1, socket.htons(static)),  # none of these bits: drop
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    pointer = struct.pack("@HP", len(steps), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def _received(listener: socket.socket, lost: set[Change]) -> Iterator[tuple[int, bytes, int]]:
    """(message type, body, namespace or -1 for ours) of all that is queued; notes in `lost` if some was lost."""
    while True:
        try:
            data, ancillary, _, _ = listener.recvmsg(1 << 17, 64)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost.add(Change())
            continue
        nsid = -1
        for level, kind, value in ancillary:
            if level == SOL_NETLINK and kind == _LISTEN_ALL_NSID:
                nsid = struct.unpack("=i", value)[0]
        for kind, _, _, body in messages(data):
            yield kind, body, nsid


def _route_change(kind: int, body: bytes, nsid: int) -> Change | None:
    """Leaves out what is no loss: devices that are up and in place, new addresses, new routes."""
    match kind:
        case netlink.RTM_NEWLINK | netlink.RTM_DELLINK:
            family, _, _, flags, _ = struct.unpack_from("=BxHiII", body)
            found = attributes(body, 16)
            name = _text(found.get(_IFLA_IFNAME))
            in_place = flags & netlink.IFF_UP and (_IFLA_MASTER in found or not name.startswith(("veth", "vxlan")))
            if family == socket.AF_BRIDGE:
                return None
            if kind == netlink.RTM_NEWLINK and in_place:
                (mtu,) = struct.unpack("=I", found.get(_IFLA_MTU, bytes(4)))
                return Change(device=name, mtu=mtu) if nsid < 0 and mtu else None
            return Change(device=name, nsid=nsid)
        case neighbours.RTM_DELNEIGH | neighbours.RTM_NEWNEIGH:
            written = kind == neighbours.RTM_NEWNEIGH
            return Change(nsid=nsid, row=True, written=written) if nsid >= 0 else None
        case resolver_filter.RTM_DELQDISC | resolver_filter.RTM_DELTFILTER:
            return Change(nsid=nsid) if nsid >= 0 else None
        case netlink.RTM_DELADDR:
            name = _device_name(struct.unpack_from("=BBBBI", body)[4])
        case netlink.RTM_DELROUTE | netlink.RTM_NEWROUTE:
            default = body[1] == 0
            if body[4] != netlink.RT_TABLE_MAIN:
                return None
            if kind == netlink.RTM_NEWROUTE and not (default and nsid >= 0):
                return None
            name = _device_name(struct.unpack("=I", attributes(body, 12).get(_RTA_OIF, bytes(4)))[0])
        case _:
            return None
    if nsid >= 0:
        return Change(nsid=nsid)
    return Change(device=name) if name else None


def _table_change(kind: int, body: bytes, nsid: int) -> Change | None:
    if kind >> 8 != _NFTABLES_SUBSYSTEM or kind & 0xFF == _NEW_GENERATION:
        return None
    table = _text(attributes(body, 4).get(_TABLE_NAME))
    if not table.startswith("netd"):
        return None
    return Change(nsid=nsid) if nsid >= 0 else Change(table=table)


def _text(payload: bytes | None) -> str:
    return (payload or b"").rstrip(b"\0").decode(errors="replace")


def _device_name(index: int) -> str:
    """Of a device of the process's namespace; "" if it is gone, which has an event of its own."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
