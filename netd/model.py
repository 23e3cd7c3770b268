"""The objects of the Docker Engine API as netd reads, stores and answers them.

Field names are Docker's. Decoding is strict about types and lenient about unknown fields, as Docker is.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

# a command line: Docker takes a lone string for its only word
Words = Annotated[list[str], Meta(extra={"lone_string": True})]


def _docker_name(name: str) -> str:
    """`enable_icc` -> `EnableIcc`, with Docker's spelling of acronyms."""
    special = {"ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "ipam": "IPAM", "dns": "Dns", "tty": "Tty"}
    return "".join(special.get(part, part.capitalize()) for part in name.split("_"))


class Docker(Struct, rename=_docker_name, kw_only=True, frozen=True):
    """Base of everything that has Docker's field names in JSON. A change makes a new object (`replace`)."""


# ---- networks -------------------------------------------------------------------------------------------


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


# ---- containers -----------------------------------------------------------------------------------------


class PortBinding(Docker, frozen=True):
    host_ip: str = field(default="", name="HostIp")
    host_port: str = ""


class LogConfig(Docker, frozen=True):
    type: str = "json-file"
    config: dict[str, str] | None = None


class RestartPolicy(Docker, frozen=True):
    name: str = "no"
    maximum_retry_count: int = 0


class Mount(Docker, omit_defaults=True, frozen=True):
    """One entry of HostConfig.Mounts; netd offers type `bind` and `tmpfs`."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    read_only: bool = False


class HostConfig(Docker, frozen=True):
    """The part of a container's configuration that concerns the host."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    dns_routes: list[str] | None = None  # netd's own: `DOMAIN=SERVER[,SERVER...]`
    extra_hosts: list[str] | None = None
    links: list[str] | None = None
    mounts: list[Mount] | None = None
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    sysctls: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    init: bool | None = None
    memory: int = 0
    nano_cpus: int = 0
    pids_limit: int | None = None


class ContainerConfig(Docker, frozen=True):
    """The portable part of a container's configuration."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: Words | None = None
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: Words | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    mac_address: str | None = None
    healthcheck: dict[str, Any] | None = None


class NetworkingConfig(Docker, frozen=True):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class ContainerCreate(ContainerConfig, frozen=True):
    """Body of POST /containers/create: the container's configuration with two more members."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class ContainerUpdate(Docker, frozen=True):
    """Body of POST /containers/{id}/update; what is None, zero or empty stays as it is. The `Any` are refused."""

    memory: int = 0
    nano_cpus: int = 0
    pids_limit: int | None = None
    restart_policy: RestartPolicy = field(default_factory=lambda: RestartPolicy(name=""))
    blkio_device_read_bps: Any = None
    blkio_device_read_iops: Any = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_bps: Any = None
    blkio_device_write_iops: Any = field(default=None, name="BlkioDeviceWriteIOps")
    blkio_weight: Any = None
    blkio_weight_device: Any = None
    cgroup_parent: Any = None
    cpu_period: Any = None
    cpu_quota: Any = None
    cpu_realtime_period: Any = None
    cpu_realtime_runtime: Any = None
    cpu_shares: Any = None
    cpuset_cpus: Any = None
    cpuset_mems: Any = None
    device_cgroup_rules: Any = None
    device_requests: Any = None
    devices: Any = None
    kernel_memory: Any = None
    kernel_memory_tcp: Any = field(default=None, name="KernelMemoryTCP")
    memory_reservation: Any = None
    memory_swap: Any = None
    memory_swappiness: Any = None
    oom_kill_disable: Any = None
    ulimits: Any = None


class State(Docker, frozen=True):
    """What a container does now, and what became of it."""

    status: str = "created"  # created | running | paused | restarting | exited
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field(default=False, name="OOMKilled")
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = "0001-01-01T00:00:00Z"
    finished_at: str = "0001-01-01T00:00:00Z"

    @property
    def alive(self) -> bool:
        """Whether there is a process: a container that waits for its restart is called running too, as in Docker."""
        return self.running and not self.restarting


class Container(Docker, frozen=True):
    """A container as stored: identity, configuration, state and its network attachments by network name."""

    id: str
    name: str  # without the leading slash
    created: str
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    state: State = field(default_factory=State)
    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    sandbox_id: str = ""
    restart_count: int = 0  # by policy, since the last start by hand
    stopped_by_user: bool = False  # since then; kept over a restart of the daemon


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


class ExecConfig(Docker, frozen=True):
    """Body of POST /containers/{id}/exec."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ImageConfig(Docker, frozen=True):
    """The configuration an image gives to its containers."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    volumes: dict[str, dict[str, Any]] | None = None


class Image(Docker, frozen=True):
    """An image as stored: one root file system and the configuration that goes with it."""

    id: str  # "sha256:<64 hex>"
    created: str
    repo_tags: list[str]
    config: ImageConfig
    size: int = 0  # bytes
    comment: str = ""
    layer: str = ""  # "sha256:<64 hex>" of the uncompressed archive it was made from
