"""What the backends that speak HTTP share: a session that notices soon when a server is gone."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import aiohttp

from kvstore.cluster import Cluster, notice_death

UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)  # the request never left


def session(cluster: Cluster, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
    """A session for all servers of the cluster, with its TLS and its patience."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=cluster.tls() or True, socket_factory=_socket),
        timeout=timeout(cluster),
        headers=headers,
    )


def timeout(cluster: Cluster, total: float | None = None) -> aiohttp.ClientTimeout:
    """For one request that may take `total` seconds, or as long as any."""
    return aiohttp.ClientTimeout(total=total or cluster.attempt, sock_connect=cluster.connect)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    notice_death(made)
    return made
