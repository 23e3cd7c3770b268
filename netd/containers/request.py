"""Checking a request to create a container (facts 3.1 to 3.5), and merging in what the image adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from msgspec.structs import asdict, replace

from netd.config.servers import check_servers
from netd.containers.ports import parse_bindings, parse_port
from netd.core.errors import InvalidParameter, NotImplementedHere
from netd.model.containers import (
    Container,
    ContainerConfig,
    ContainerCreate,
    ContainerUpdate,
    HostConfig,
    RestartPolicy,
)
from netd.model.images import Image, ImageConfig
from netd.model.networks import EndpointSettings
from netd.networks.settings import check_settings, parse_links


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request: what will be stored, and the warnings to answer with."""

    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointSettings]
    warnings: list[str]


def check(body: ContainerCreate, image: Image) -> Request:
    """Apply every rule that needs no other container or network; merge in the image's configuration."""
    host = body.host_config or HostConfig()
    if host.network_mode in ("", "default"):
        host = replace(host, network_mode="bridge")
    given = ContainerConfig(**{k: v for k, v in asdict(body).items() if k in ContainerConfig.__struct_fields__})
    config = _merged(given, image.config)
    if not (config.entrypoint or config.cmd):
        raise InvalidParameter("no command specified")
    _check_mode(config, host)
    _check_host_config(config, host)
    networks = _networks(body, host)
    warnings = []
    if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
        warnings.append("Published ports are discarded when using host network mode")
    return Request(config, host, networks, warnings)


def _merged(config: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """The container's own settings win; environment, labels, ports and volumes are joined."""
    given = {item.partition("=")[0] for item in config.env or ()}
    entrypoint, cmd = _command(config, image)
    return replace(
        config,
        env=[e for e in image.env or () if e.partition("=")[0] not in given] + (config.env or []),
        entrypoint=entrypoint,
        cmd=cmd,
        labels={**(image.labels or {}), **(config.labels or {})},
        exposed_ports={**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None,
        volumes={**(image.volumes or {}), **(config.volumes or {})} or None,
        user=config.user or image.user,
        working_dir=config.working_dir or image.working_dir,
        stop_signal=config.stop_signal or image.stop_signal,
    )


def _command(config: ContainerConfig, image: ImageConfig) -> tuple[list[str] | None, list[str] | None]:
    """Entry point and arguments: the image's arguments go with its own entry point only."""
    if config.entrypoint == [""]:
        return None, config.cmd
    if config.entrypoint:
        return config.entrypoint, config.cmd
    return None if config.entrypoint == [] else image.entrypoint, config.cmd or image.cmd


def _check_mode(config: ContainerConfig, host: HostConfig) -> None:
    mode = host.network_mode
    joins = mode.startswith("container:")
    conflict = "conflicting options: "
    if mode == "container:" or mode == "container":
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if joins and (config.hostname or config.domainname):
        raise InvalidParameter(conflict + "hostname and the network mode")
    if host.uts_mode == "host" and (config.hostname or config.domainname):
        raise InvalidParameter(conflict + "hostname and the UTS mode")
    if host.links and (joins or mode == "host"):
        kind = "container type network" if joins else "host type networking"
        raise InvalidParameter(f"{conflict}{kind} can't be used with links. This would result in undefined behavior")
    if joins and (host.dns or host.dns_search or host.dns_options):
        raise InvalidParameter(conflict + "dns and the network mode")
    if joins and host.extra_hosts:
        raise InvalidParameter(conflict + "custom host-to-IP mapping and the network mode")
    if config.mac_address and (joins or mode == "host"):
        raise InvalidParameter(conflict + "mac-address and the network mode")
    if joins and (host.port_bindings or host.publish_all_ports):
        raise InvalidParameter(conflict + "port publishing and the container type network mode")
    if joins and config.exposed_ports:
        raise InvalidParameter(conflict + "port exposing and the container type network mode")


def updated(record: Container, body: ContainerUpdate) -> Container:
    """A container with other limits or another restart policy; what netd does not limit it does not change either."""
    host, policy = record.host_config, body.restart_policy
    for name, key in zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True):
        if name not in host.__struct_fields__ and getattr(body, name):
            raise NotImplementedHere(f"netd does not limit containers by {key}, nor can it be changed")
    if policy.name:
        check_policy(policy)
        if host.auto_remove and policy.name != "no":
            raise InvalidParameter("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changed = replace(
        host,
        memory=body.memory or host.memory,
        nano_cpus=body.nano_cpus or host.nano_cpus,
        pids_limit=body.pids_limit or host.pids_limit,
        restart_policy=policy if policy.name else host.restart_policy,
    )
    return replace(record, host_config=changed)


def check_policy(policy: RestartPolicy) -> None:
    """`InvalidParameter` for a restart policy that Docker does not have."""
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        known = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        raise InvalidParameter(f"invalid restart policy: unknown policy '{policy.name}'; {known}")
    if policy.name != "on-failure" and policy.maximum_retry_count:
        raise InvalidParameter("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")


def _check_host_config(config: ContainerConfig, host: HostConfig) -> None:
    for port in config.exposed_ports or ():
        parse_port(port)
    parse_bindings(host.port_bindings or {})
    extra_hosts(host.extra_hosts or ())
    parse_links(host.links or ())
    check_servers(host.dns or (), host.dns_routes or ())
    check_policy(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def extra_hosts(given: Sequence[str]) -> list[tuple[str, str]]:
    """`name:address` pairs of --add-host; the address may be `host-gateway`."""
    pairs = []
    for item in given:
        name, found, address = item.partition("=" if "=" in item else ":")
        if not found or not name:
            raise InvalidParameter(f'bad format for add-host: "{item}"')
        if address != "host-gateway":
            try:
                ip_address(address.removeprefix("[").removesuffix("]"))
            except ValueError:
                raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None
        pairs.append((name, address.removeprefix("[").removesuffix("]")))
    return pairs


def _networks(body: ContainerCreate, host: HostConfig) -> dict[str, EndpointSettings]:
    """Endpoint settings by network; the one of the network mode is always there."""
    mode = host.network_mode
    if mode.startswith("container:"):
        return {}
    given = (body.networking_config.endpoints_config if body.networking_config else None) or {}
    networks = {("bridge" if k == "default" else k): v or EndpointSettings() for k, v in given.items()}
    primary = networks.get(mode, EndpointSettings())
    if body.mac_address and not primary.mac_address:
        primary = replace(primary, mac_address=body.mac_address)
    if host.links and mode != "bridge":
        primary = replace(primary, links=[*(primary.links or []), *host.links])
    networks[mode] = primary
    for settings in networks.values():
        check_settings(settings)
    if len(networks) > 1 and {"host", "none"} & networks.keys():
        raise InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    return networks
