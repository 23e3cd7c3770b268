"""`--network` and the flags beside it (`--ip`, `--network-alias`, `--link`, ...) to endpoint configurations."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from netd.cli.words.flags import Options, parse_int, split_csv
from netd.cli.words.values import is_mac

_T = TypeVar("_T")
_PREDEFINED = ("default", "bridge", "host", "none", "nat")


class Attachment(NamedTuple):
    """What one `--network` says about the attachment to that network."""

    target: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    driver_opts: dict[str, str] | None = None
    priority: int = 0

    @property
    def user_defined(self) -> bool:
        return self.target not in _PREDEFINED and not self.target.startswith("container:")


def parse_network(text: str) -> Attachment:
    """`NAME`, or `name=NAME,alias=A,ip=...,driver-opt=k=v`; raises ValueError in Docker's words.

    Values keep their case; Docker's client lowers them, and so cannot attach to a network called `Shop`.
    """
    if "=" not in text:
        return Attachment(text)
    found = Attachment("")
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        match key:
            case "name":
                found = found._replace(target=value)
            case "alias":
                found = found._replace(aliases=(*found.aliases, value))
            case "ip":
                found = found._replace(ipv4=value)
            case "ip6":
                found = found._replace(ipv6=value)
            case "mac-address":
                found = found._replace(mac=value)
            case "link-local-ip":
                found = found._replace(link_local=(*found.link_local, value))
            case "driver-opt":
                found = found._replace(driver_opts=(found.driver_opts or {}) | _driver_opt(value))
            case "gw-priority":
                found = found._replace(priority=_priority(value))
            case _:
                raise ValueError(f"invalid field key {key}")
    if not found.target:
        raise ValueError("network name/id is not specified")
    return found


def _driver_opt(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("invalid key value pair format in driver options")
    return {key.strip().lower(): value.strip()}


def _priority(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError as error:
        kind = "value out of range" if "range" in str(error) else "invalid syntax"
        raise ValueError(f"invalid gw-priority ({text}): {kind}") from error


def endpoints(options: Options) -> dict[str, dict[str, Any]]:
    """EndpointsConfig of a container; the flags beside `--network` belong to the first network.

    Raises ValueError for what cannot be combined.
    """
    given: list[Attachment] = options.network
    first, *others = given or [Attachment("default")]
    attachments = [_with_container_flags(first, options), *others]
    configs: dict[str, dict[str, Any]] = {}
    for attachment in attachments:
        config = _config(attachment)
        if attachment.target in configs:
            raise ValueError(f'network "{attachment.target}" is specified multiple times')
        configs[attachment.target] = config
    if len({attachment.user_defined for attachment in attachments}) > 1:
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return configs


def _with_container_flags(attachment: Attachment, options: Options) -> Attachment:
    links = tuple(options.link) if attachment.user_defined else ()
    return attachment._replace(
        aliases=_either(attachment.aliases, tuple(options.network_alias), "--network-alias and per-network alias"),
        links=_either(attachment.links, links, "--link and per-network links"),
        ipv4=_either(attachment.ipv4, options.ip, "--ip and per-network IPv4 address"),
        ipv6=_either(attachment.ipv6, options.ip6, "--ip6 and per-network IPv6 address"),
        mac=_either(attachment.mac, options.mac_address, "--mac-address and per-network MAC address"),
        link_local=_either(
            attachment.link_local,
            tuple(options.link_local_ip),
            "--link-local-ip and per-network link-local IP addresses",
        ),
    )


def _either(own: _T, flag: _T, both: str) -> _T:
    if own and flag:
        raise ValueError(f"conflicting options: cannot specify both {both}")
    return own or flag


def _config(attachment: Attachment) -> dict[str, Any]:
    if not attachment.target.strip():
        raise ValueError("no name set for network")
    if not attachment.user_defined and attachment.aliases:
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    if not attachment.user_defined and attachment.links:
        raise ValueError("links are only supported for user-defined networks")
    if attachment.mac and not is_mac(attachment.mac):
        raise ValueError(f"{attachment.mac} is not a valid mac address")
    ipam = {
        "IPv4Address": attachment.ipv4,
        "IPv6Address": attachment.ipv6,
        "LinkLocalIPs": list(attachment.link_local),
    }
    return {
        "IPAMConfig": {key: value for key, value in ipam.items() if value} or None,
        "Links": list(attachment.links) or None,
        "Aliases": list(attachment.aliases) or None,
        "MacAddress": attachment.mac,
        "DriverOpts": attachment.driver_opts,
        "GwPriority": attachment.priority,
    }
