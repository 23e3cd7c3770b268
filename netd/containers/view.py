"""Containers as Docker's API shows them (facts 3.18, 3.59 to 3.62), and the filters of their list."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from netd.containers import links
from netd.containers.live import LiveContainer
from netd.containers.publishing import ports_view
from netd.core.errors import InvalidParameter, NotFound
from netd.core.filters import Filters
from netd.core.identity import by_reference
from netd.core.times import unix_seconds
from netd.model.containers import Container
from netd.model.networks import EndpointSettings
from netd.model.sandboxes import Endpoint, Sandbox

_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def inspect(record: Container, sandbox: Sandbox | None, directory: Path) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    config = msgspec.to_builtins(record.config)
    command = [*(record.config.entrypoint or ()), *(record.config.cmd or ())]
    if not config["Hostname"] and not record.host_config.network_mode.startswith("container:"):
        config["Hostname"] = record.id[:12]
    return {
        "Id": record.id,
        "Created": record.created,
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": msgspec.to_builtins(record.state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "container.log"),
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {**msgspec.to_builtins(record.host_config), "Links": links.shown(record)},
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Mounts": [_bind(b) for b in record.host_config.binds or ()],
        "Config": config,
        "NetworkSettings": _network_settings(record, sandbox),
    }


def summary(record: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    """One element of GET /containers/json."""
    command = [*(record.config.entrypoint or ()), *(record.config.cmd or ())]
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": " ".join(command),
        "Created": int(unix_seconds(record.created)),
        "Ports": _port_list(record, sandbox),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(record),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": _networks(record, sandbox)},
        "Mounts": [_bind(b) for b in record.host_config.binds or ()],
    }


def status_text(record: Container) -> str:
    """The STATUS column of `ps`: `Up 3 minutes`, `Exited (0) 2 hours ago`."""
    state = record.state
    now = time.time()
    if state.restarting:
        return f"Restarting ({state.exit_code}) {human_duration(now - unix_seconds(state.finished_at))} ago"
    if state.running:
        text = f"Up {human_duration(now - unix_seconds(state.started_at))}"
        return f"{text} (Paused)" if state.paused else text
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {human_duration(now - unix_seconds(state.finished_at))} ago"
    return state.status.capitalize()


def human_duration(seconds: float) -> str:
    """A duration in the words of Docker's go-units."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if hours < 24 * 7 * 2:
        return f"{days} days"
    if hours < 24 * 30 * 2:
        return f"{days // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{days // 30} months"
    return f"{days // 365} years"


def _network_settings(record: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    networks = _networks(record, sandbox)
    bridge = networks.get("bridge") or msgspec.to_builtins(EndpointSettings())
    return {
        "Bridge": "",
        "SandboxID": record.sandbox_id,
        "SandboxKey": sandbox.netns if sandbox else "",
        "Ports": msgspec.to_builtins(ports_view(record, sandbox)),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge["EndpointID"],
        "Gateway": bridge["Gateway"],
        "GlobalIPv6Address": bridge["GlobalIPv6Address"],
        "GlobalIPv6PrefixLen": bridge["GlobalIPv6PrefixLen"],
        "IPAddress": bridge["IPAddress"],
        "IPPrefixLen": bridge["IPPrefixLen"],
        "IPv6Gateway": bridge["IPv6Gateway"],
        "MacAddress": bridge["MacAddress"],
        "Networks": networks,
    }


def _networks(record: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    """Settings as configured, with addresses while the container runs (fact 2.102)."""
    endpoints = {e.network: e for e in sandbox.endpoints} if sandbox else {}
    return {
        name: msgspec.to_builtins(_filled(settings, endpoints.get(name))) for name, settings in record.networks.items()
    }


def _filled(settings: EndpointSettings, endpoint: Endpoint | None) -> EndpointSettings:
    if endpoint is None:
        return settings
    ipv4, _, length4 = endpoint.ipv4.partition("/")
    ipv6, _, length6 = endpoint.ipv6.partition("/")
    return replace(
        settings,
        network_id=endpoint.network_id,
        endpoint_id=endpoint.id,
        gateway=endpoint.gateway4,
        ip_address=ipv4,
        ip_prefix_len=int(length4 or 0),
        ipv6_gateway=endpoint.gateway6,
        global_ipv6_address=ipv6,
        global_ipv6_prefix_len=int(length6 or 0),
        mac_address=endpoint.mac,
        dns_names=list(endpoint.names) or None,
    )


def _bind(bind: str) -> dict[str, Any]:
    source, _, rest = bind.partition(":")
    target, _, mode = rest.partition(":")
    return {
        "Type": "bind",
        "Source": source,
        "Destination": target,
        "Mode": mode,
        "RW": "ro" not in mode.split(","),
        "Propagation": "rprivate",
    }


def _port_list(record: Container, sandbox: Sandbox | None) -> list[dict[str, Any]]:
    ports = []
    for key, bindings in ports_view(record, sandbox).items():
        number, _, proto = key.partition("/")
        base = {"PrivatePort": int(number), "Type": proto}
        if not bindings:
            ports.append(base)
        ports += [{"IP": b.host_ip, **base, "PublicPort": int(b.host_port)} for b in bindings or ()]
    return ports


def check_filters(filters: Filters) -> None:
    """`InvalidParameter` for a filter that the container list does not have."""
    filters.check("ancestor", "before", "exited", "id", "label", "name", "network", "since", "status")
    for status in filters.get("status"):
        if status not in _STATUSES:
            raise InvalidParameter(f"invalid filter 'status={status}'")
    for code in filters.get("exited"):
        if not code.lstrip("-").isdecimal():
            raise InvalidParameter(f"invalid filter 'exited={code}'")


def passing(filters: Filters, live: Mapping[str, LiveContainer]) -> Callable[[Container], bool]:
    """What tells whether a container passes: values of one key are alternatives, keys must all hold.

    Whom `before` and `since` mean is found out here, once, and not for each container that is asked about.
    """
    before = [_created(ref, live) for ref in filters.references("before")]
    since = [_created(ref, live) for ref in filters.references("since")]
    first, last = min(before, default=None), max(since, default=None)

    def passes(record: Container) -> bool:
        return (
            (first is None or record.created < first)
            and (last is None or record.created > last)
            and _passes(record, filters)
        )

    return passes


def _passes(record: Container, filters: Filters) -> bool:
    state = record.state
    if (codes := filters.get("exited")) and (state.status != "exited" or str(state.exit_code) not in codes):
        return False
    if (networks := filters.get("network")) and not networks & _network_refs(record):
        return False
    if (images := filters.get("ancestor")) and not _is_ancestor(record, images):
        return False
    return (
        filters.match("id", record.id)
        and (filters.match("name", record.name) or filters.match("name", f"/{record.name}"))
        and filters.exact("status", state.status)
        and filters.labels(record.config.labels or {})
    )


def _network_refs(record: Container) -> set[str]:
    return {*record.networks, *(s.network_id for s in record.networks.values())}


def _is_ancestor(record: Container, images: frozenset[str]) -> bool:
    own = {record.config.image, record.config.image.removesuffix(":latest"), record.image_id}
    return not own.isdisjoint(images) or record.image_id.removeprefix("sha256:").startswith(tuple(images))


def _created(ref: str, live: Mapping[str, LiveContainer]) -> str:
    try:
        return by_reference(ref, live, lambda c: c.record.name, "container").record.created
    except NotFound:
        raise NotFound(f"No such container: {ref}") from None
