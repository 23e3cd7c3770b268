"""From a URL to an open store, or to what keeps it from being opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kvstore import cluster
from kvstore.contract import Store
from kvstore.diagnosis import Diagnosis
from kvstore.sqlite import SqliteStore

_PORTS = {"etcd": 2379, "consul": 8500, "zk": 2181}


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

            return EtcdStore(_servers(text, options))
        case "consul":
            from kvstore.consul import ConsulStore

            return ConsulStore(_servers(text, options))
        case "zk":
            from kvstore.zookeeper import ZooKeeperStore

            return ZooKeeperStore(_servers(text, options))
    raise ValueError(f"unknown kind of store {scheme!r} in {text!r}: use sqlite, etcd, consul or zk")


def examine(url: str, options: Mapping[str, str]) -> Diagnosis:
    """A closer look at the servers of a cluster that `url` names. Raises as `open_store` does."""
    return Diagnosis(_servers(url, options))


def _servers(url: str, options: Mapping[str, str]) -> cluster.Cluster:
    return cluster.parse(url, options, _PORTS.get(url.partition(":")[0], 0))
