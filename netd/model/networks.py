"""Networks, and endpoints as users ask for them."""

from __future__ import annotations

from msgspec import field

from netd.model.docker import Docker


class IPAMConfig(Docker, omit_defaults=True, frozen=True):
    """One address pool of a network, as the user gave it or as it was allocated."""

    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Docker, frozen=True):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMConfig] | None = None


class ConfigReference(Docker, frozen=True):
    network: str = ""


class NetworkCreate(Docker, frozen=True):
    """Body of POST /networks/create."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    ipam: IPAM | None = field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Network(Docker, frozen=True):
    """A network as stored and as inspected (without its live `Containers`)."""

    name: str
    id: str
    created: str
    scope: str
    driver: str
    enable_ipv4: bool = field(default=True, name="EnableIPv4")
    enable_ipv6: bool = field(default=False, name="EnableIPv6")
    ipam: IPAM = field(default_factory=IPAM, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = field(default_factory=ConfigReference)
    config_only: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class EndpointIPAMConfig(Docker, omit_defaults=True, frozen=True):
    """The addresses a user asked for."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: list[str] | None = field(default=None, name="LinkLocalIPs")


class EndpointSettings(Docker, frozen=True):
    """A container's attachment to one network: what the user asked for, and what it has while it runs."""

    ipam_config: EndpointIPAMConfig | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(default="", name="NetworkID")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = field(default=None, name="DNSNames")


class NetworkConnect(Docker, frozen=True):
    """Body of POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Docker, frozen=True):
    """Body of POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class StaticRecord(Docker, frozen=True):
    """A record that a user gave a network: a line of a zone file in parts. TTL in seconds; None is the network's."""

    name: str
    type: str
    data: str
    ttl: int | None = field(default=None, name="TTL")

    @property
    def line(self) -> str:
        """As in a zone file (RFC 1035 section 5)."""
        ttl = "" if self.ttl is None else f"{self.ttl} "
        return f"{self.name} {ttl}IN {self.type} {self.data}"
