"""Checking a request to create a network: name, driver, configuration networks (facts 2.8 to 2.19, 2.62 to 2.66)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netd.core.errors import Conflict, Forbidden, InvalidParameter, NotFound
from netd.ipam.validate import PoolRequest, validate
from netd.model.networks import IPAM, Network, NetworkCreate

PREDEFINED = ("bridge", "host", "none")
MTU = "com.docker.network.driver.mtu"
NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a valid request asks for, with defaults and configuration networks resolved."""

    driver: str
    scope: str
    enable_ipv4: bool
    enable_ipv6: bool
    options: dict[str, str]
    labels: dict[str, str]
    ipam: IPAM
    pools: tuple[PoolRequest, ...]


def plan(request: NetworkCreate, existing: Mapping[str, Network]) -> Plan:
    """Check a request against the rules and the networks there are (by name)."""
    _check_name(request.name, existing)
    if request.config_only:
        return _config_only(request)
    driver = request.driver or "bridge"
    _check_driver(request, driver)
    ipam = request.ipam or IPAM()
    options, labels = request.options or {}, request.labels or {}
    enable_ipv6 = bool(request.enable_ipv6)
    if request.config_from is not None and request.config_from.network:
        source = _configuration(request, existing)
        ipam, options, labels, enable_ipv6 = source.ipam, source.options, source.labels, source.enable_ipv6
    enable_ipv4 = request.enable_ipv4 is not False
    if not (enable_ipv4 or enable_ipv6):
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    pools = validate(ipam.config or [], ipv4=enable_ipv4, ipv6=enable_ipv6)
    if driver == "bridge" and (sum(not pool.v6 for pool in pools) > 1 or sum(pool.v6 for pool in pools) > 1):
        raise Forbidden(f"{driver} driver doesn't support multiple subnets")
    scope = "global" if driver == "overlay" else "local"
    return Plan(driver, scope, enable_ipv4, enable_ipv6, dict(options), dict(labels), _named(ipam), pools)


def _check_name(name: str, existing: Mapping[str, Network]) -> None:
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if "/" in name or not name.isprintable():
        raise InvalidParameter(f"invalid name: {name!r} holds a slash or a control character")
    if name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if name in existing:
        raise Conflict(f"network with name {name} already exists")


def _check_driver(request: NetworkCreate, driver: str) -> None:
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if request.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if request.scope not in ("", "global" if driver == "overlay" else "local"):
        raise Forbidden(NOT_A_MANAGER)
    if driver not in ("bridge", "overlay"):
        raise NotFound(f'plugin "{driver}" not found')
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    ipam_driver = request.ipam.driver if request.ipam else ""
    if ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam_driver}" not found')


def _config_only(request: NetworkCreate) -> Plan:
    if request.config_from is not None and request.config_from.network:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if request.ingress or request.internal or request.attachable or request.scope not in ("", "local"):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    ipam = request.ipam or IPAM()
    enable_ipv6 = bool(request.enable_ipv6)
    validate(ipam.config or [], ipv4=True, ipv6=enable_ipv6)
    return Plan("null", "local", True, enable_ipv6, request.options or {}, request.labels or {}, _named(ipam), ())


def _configuration(request: NetworkCreate, existing: Mapping[str, Network]) -> Network:
    assert request.config_from is not None
    source = existing.get(request.config_from.network)
    if source is None or not source.config_only:
        raise NotFound(f'configuration network "{request.config_from.network}" does not exist')
    if request.ipam is not None and request.ipam.config:
        raise Forbidden(
            "user-specified configurations are not supported if the network depends on a configuration network"
        )
    if request.options:
        raise Forbidden("network driver options are not supported if the network depends on a configuration network")
    return source


def _named(ipam: IPAM) -> IPAM:
    return IPAM(driver=ipam.driver or "default", options=ipam.options, config=ipam.config or [])
