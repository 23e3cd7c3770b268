"""A VXLAN device without a network: what it hands up has come the way of overlay traffic, past all firewalls."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from drivers.spec import DriverError


def make_probe_device(name: str, vni: int, port: int, address: IPv4Address | IPv6Address) -> None:
    """Make it anew, up, on this address. Blocks: pyroute2's sockets need an event loop that is not uvloop.

    Raises `DriverError`.
    """
    local = "vxlan_local" if address.version == 4 else "vxlan_local6"
    try:
        with IPRoute() as kernel:
            _remove(kernel, name)
            kernel.link(
                "add", ifname=name, kind="vxlan", vxlan_id=vni, vxlan_port=port, vxlan_learning=False,
                **{local: str(address)},
            )  # fmt: skip
            _without_ipv6(name)
            (index,) = kernel.link_lookup(ifname=name)
            kernel.link("set", index=index, state="up")
    except (NetlinkError, OSError) as error:
        raise DriverError(f"no device {name}: {error}") from error


def remove_probe_device(name: str) -> None:
    """Remove it; absent is fine. Blocks, and raises `DriverError`, as `make_probe_device` does."""
    try:
        with IPRoute() as kernel:
            _remove(kernel, name)
    except (NetlinkError, OSError) as error:
        raise DriverError(f"device {name} cannot be removed: {error}") from error


def _remove(kernel: IPRoute, name: str) -> None:
    for index in kernel.link_lookup(ifname=name):
        kernel.link("del", index=index)


def _without_ipv6(name: str) -> None:
    """The device has no business with neighbours or routers."""
    switch = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if switch.exists():
        switch.write_text("1")
