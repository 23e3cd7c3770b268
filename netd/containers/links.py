"""`--link` on the default bridge, which has no resolver: lines in /etc/hosts (facts 1.75 to 1.79)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from netd.core.errors import Conflict, InvalidParameter, NotFound
from netd.model.containers import Container
from netd.model.sandboxes import Sandbox
from netd.networks.settings import parse_links
from netd.sandboxes import etc

Find = Callable[[str], Container]
SandboxOf = Callable[[Container], Sandbox | None]


def check(record: Container, find: Find) -> None:
    """Every target must exist when the container is created."""
    for target in _links(record).values():
        try:
            find(target)
        except NotFound as error:
            raise InvalidParameter(f"could not get container for {target}: {error}") from None


def host_lines(record: Container, find: Find, sandbox_of: SandboxOf) -> list[str]:
    """One line a link, `ADDRESS alias hostname name`; every target must run on the default bridge too."""
    return [_line(record, alias, find(target), sandbox_of) for alias, target in _links(record).items()]


def shown(record: Container) -> list[str] | None:
    """HostConfig.Links as inspect shows them: `/target:/container/alias` (fact 1.79)."""
    links = _links(record)
    return [f"/{target}:/{record.name}/{alias}" for alias, target in links.items()] or record.host_config.links


def refresh(record: Container, hosts: Path, target: Container, sandbox_of: SandboxOf) -> None:
    """The target has started again: its address in a running linker's file is the new one (fact 1.77)."""
    for alias, name in _links(record).items():
        if name in (target.name, target.id, target.id[:12]):
            with contextlib.suppress(Conflict):  # it has left the bridge meanwhile: nothing to tell
                etc.readdress(hosts, _line(record, alias, target, sandbox_of))


def targets(record: Container) -> list[str]:
    """What the container links to, as the user named it."""
    return list(_links(record).values())


def without(record: Container, alias: str) -> Container:
    """The container without one of its links; `NotFound` if it has none of this alias."""
    links = record.host_config.links or []
    kept = [link for link in links if alias not in parse_links([link])]
    if record.host_config.network_mode != "bridge" or kept == links:
        raise NotFound(f"No such link: /{record.name}/{alias}")
    return replace(record, host_config=replace(record.host_config, links=kept))


def _links(record: Container) -> dict[str, str]:
    """Alias to target, empty for a container that is not on the default bridge."""
    if record.host_config.network_mode != "bridge":
        return {}
    return parse_links(record.host_config.links or ())


def _line(record: Container, alias: str, target: Container, sandbox_of: SandboxOf) -> str:
    sandbox = sandbox_of(target)
    if not target.state.alive or sandbox is None:
        raise Conflict(f"Cannot link to a non running container: /{target.name} AS /{record.name}/{alias}")
    endpoint = next((e for e in sandbox.endpoints if e.network == "bridge"), None)
    if endpoint is None:
        raise Conflict(f"Cannot link to /{target.name}, as it does not belong to the default network")
    names = dict.fromkeys((alias, sandbox.hostname, target.name))
    return f"{endpoint.addresses[0]}\t{' '.join(names)}"
