"""Many hosts taking addresses from one pool at the same time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from kvstore.contract import KeyExists, Store
from tests.cluster.conftest import Backend, Host, hosts

ALL = 1000


def count_refused(store: Store) -> list[str]:
    """Keeps the keys that `create` found taken."""
    refused: list[str] = []
    create = store.create

    async def counting(key: str, value: bytes, lease: object = None) -> object:
        try:
            return await create(key, value, lease)  # type: ignore[arg-type]
        except KeyExists:
            refused.append(key)
            raise

    store.create = counting  # type: ignore[method-assign, assignment]
    return refused


def test_three_hosts_taking_1000_addresses_at_once_get_1000_addresses(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc") as cluster:
            net = await cluster[0].network("big", "10.64.0.0/21")
            retries = [count_refused(host.cluster.store) for host in cluster]

            async def take(host: Host, count: int) -> list[str]:
                got = []
                for part in range(0, count, 20):
                    owners = [f"{host.name}-{n}" for n in range(part, min(part + 20, count))]
                    got += await asyncio.gather(*(host.cluster.addresses.allocate(net, owner) for owner in owners))
                return [str(address.ip) for address in got]

            begun = time.monotonic()
            taken = await asyncio.gather(*(take(h, n) for h, n in zip(cluster, (334, 333, 333), strict=True)))
            seconds = time.monotonic() - begun
            addresses = [address for got in taken for address in got]
            print(
                f"\n{opener.url.partition(':')[0]}: {ALL} addresses in {seconds:.2f} s, "
                f"{sum(map(len, retries))} retries"
            )
            assert len(addresses) == len(set(addresses)) == ALL
            stored = {e.key.rpartition("/")[2] for e in await cluster[1].cluster.store.list(f"ipam/{net.id}/ip/")}
            assert stored == set(addresses)

    asyncio.run(main())
