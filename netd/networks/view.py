"""Networks as Docker's API shows them (facts 2.77 to 2.82), and the filters of their list."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from netd.core.errors import InvalidParameter
from netd.core.filters import Filters
from netd.networks.live import LiveNetwork, Member


def inspect(live: LiveNetwork, members: Collection[Member] = ()) -> dict[str, Any]:
    """The JSON of API 1.48 (fact 2.77), fields in Docker's order.

    A global network's endpoints also tell their host, and `Peers` the hosts that have any (as in swarm mode).
    """
    view: dict[str, Any] = msgspec.to_builtins(live.record)
    labels, options = view.pop("Labels"), view.pop("Options")
    view["Containers"] = {member.container_id: _endpoint_view(member) for member in members}
    hosts = {member.host: member.vtep for member in members if member.host}
    peers = {"Peers": [{"Name": name, "IP": hosts[name]} for name in sorted(hosts)]} if hosts else {}
    return {**view, "Options": options, "Labels": labels, **peers}


def _endpoint_view(member: Member) -> dict[str, str]:
    endpoint = member.endpoint
    view = {
        "Name": member.container,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.ipv4,
        "IPv6Address": endpoint.ipv6,
    }
    return {**view, "Host": member.host} if member.host else view


def check_filters(filters: Filters) -> None:
    """`InvalidParameter` for a filter that the network list does not have (fact 2.84)."""
    filters.check("driver", "name", "id", "label", "scope", "type", "dangling")
    for value in filters.get("type"):
        if value not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter: 'type'='{value}'")
    if not filters.get("dangling") <= {"true", "1", "false", "0"}:
        raise InvalidParameter('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')


def passes(live: LiveNetwork, filters: Filters) -> bool:
    """Whether a network passes: values of one key are alternatives, keys must all hold."""
    record = live.record
    kinds = filters.get("type")
    if kinds and ("builtin" if live.predefined else "custom") not in kinds:
        return False
    if dangling := filters.get("dangling"):
        idle = not live.predefined and not live.members
        if idle != bool(dangling & {"true", "1"}):
            return False
    return (
        filters.exact("driver", record.driver)
        and filters.exact("scope", record.scope)
        and filters.match("name", record.name)
        and filters.match("id", record.id)
        and filters.labels(record.labels)
    )
