"""Containers: what users ask for, what is stored, and how they are now."""

from __future__ import annotations

from typing import Any

from msgspec import field

from netd.model.docker import Docker, Words
from netd.model.networks import EndpointSettings


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
