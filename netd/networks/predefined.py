"""The networks that every host has: bridge, host and none."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import ip_network

from msgspec.structs import replace

from drivers.kernel import Kernel
from netd.config.values import Config
from netd.core.records import Records
from netd.core.times import timestamp
from netd.ipam.pools import PoolAllocator
from netd.model.networks import IPAM, IPAMConfig, Network
from netd.networks.pools import bip_pool
from netd.networks.request import MTU

DEFAULT_BRIDGE = "netd0"
_BRIDGE = "com.docker.network.bridge"


@dataclass(frozen=True, slots=True)
class Predefined:
    """Makes them at the first start, and lets the default bridge follow the daemon's options."""

    records: Records[Network]
    pools: PoolAllocator
    kernel: Kernel

    async def make(self, name: str, config: Config) -> Network:
        """One that is missing; stored when this returns."""
        driver = {"none": "null"}.get(name, name)
        ipam, options = IPAM(), dict[str, str]()
        if name == "bridge":
            ipam = IPAM(config=[await self._pool(config)])
            options = {
                f"{_BRIDGE}.default_bridge": "true",
                f"{_BRIDGE}.enable_icc": "true",
                f"{_BRIDGE}.enable_ip_masquerade": "true",
                f"{_BRIDGE}.host_binding_ipv4": "0.0.0.0",
                f"{_BRIDGE}.name": DEFAULT_BRIDGE,
                MTU: str(config.mtu or 1500),
            }
        record = Network(
            name=name,
            id=secrets.token_hex(32),
            created=timestamp(),
            scope="local",
            driver=driver,
            ipam=ipam,
            options=options,
        )
        await self.records.add(record.id, record)
        return record

    async def _pool(self, config: Config) -> IPAMConfig:
        if config.bip:
            wanted = bip_pool(config.bip)
            await self.pools.request(subnet=ip_network(wanted.subnet))
            return wanted
        pool = await self.pools.request(avoid=await self.kernel.host_routes())
        return IPAMConfig(subnet=str(pool), gateway=str(pool[1]))

    async def readdressed(self, bridge: Network, config: Config) -> Network:
        """The default bridge as --bip and --mtu say now: they apply at each start."""
        present = (bridge.ipam.config or [])[0]
        wanted = bip_pool(config.bip) if config.bip else present
        options = {**bridge.options, MTU: str(config.mtu or 1500)}
        if bridge.options == options and wanted == present:
            return bridge
        self.pools.release(ip_network(present.subnet))
        await self.pools.request(subnet=ip_network(wanted.subnet))
        record = replace(bridge, options=options, ipam=IPAM(config=[wanted]))
        await self.records.put(record.id, record)
        return record
