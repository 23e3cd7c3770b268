"""From a URL to an open store."""

from __future__ import annotations

from pathlib import Path

from kvstore import cluster
from kvstore.contract import Store
from kvstore.sqlite import SqliteStore


async def open_store(url: str | Path, **options: str) -> Store:
    """Open the store that `url` names.

    A path or `sqlite:PATH` is the embedded one. `etcd://`, `consul://` and `zk://` are followed by
    `host[:port],...[/path]` and take the options `kv.cacertfile`, `kv.certfile`, `kv.keyfile`, `kv.user`,
    `kv.passwordfile`, `kv.path` and `kv.ttl` (least life of a lease, in seconds). A cluster that cannot be
    reached now is opened all the same. Raises ValueError for what it cannot understand, and `StoreError`.
    """
    text = str(url)
    scheme, colon, rest = text.partition(":")
    if isinstance(url, Path) or not colon or "/" in scheme:
        return await SqliteStore.open(text)
    match scheme:
        case "sqlite":
            return await SqliteStore.open(rest.removeprefix("//"))
        case "etcd":
            from kvstore.etcd import EtcdStore

            return EtcdStore(cluster.parse(text, options, 2379))
        case "consul":
            from kvstore.consul import ConsulStore

            return ConsulStore(cluster.parse(text, options, 8500))
        case "zk":
            from kvstore.zookeeper import ZooKeeperStore

            return ZooKeeperStore(cluster.parse(text, options, 2181))
    raise ValueError(f"unknown kind of store {scheme!r} in {text!r}: use sqlite, etcd, consul or zk")
