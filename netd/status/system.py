"""What `docker info` and `docker version` show."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from dns.client import KernelState, ResolverState
from netd import __version__
from netd.config.values import Config
from netd.core.times import timestamp

if TYPE_CHECKING:
    from netd.containers.manager import ContainerManager
    from netd.images.store import ImageStore

API_VERSION = "1.48"
MIN_API_VERSION = "1.24"


class System:
    """Facts about this daemon and its host."""

    def __init__(
        self,
        daemon_id: str,
        config: Callable[[], Config],
        containers: ContainerManager,
        images: ImageStore,
        runtime: str,
        names: Callable[[], Awaitable[ResolverState]],
    ) -> None:
        self._id = daemon_id
        self._config = config
        self._containers = containers
        self._images = images
        self._runtime = runtime
        self._names = names

    def version(self) -> dict[str, Any]:
        """GET /version."""
        details = {
            "ApiVersion": API_VERSION,
            "Arch": _architecture(),
            "KernelVersion": platform.release(),
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        return {
            "Platform": {"Name": "netd"},
            "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
            "Version": __version__,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
            **details,
        }

    def containers(self) -> dict[str, int]:
        """How many are running, paused and stopped."""
        counts = dict.fromkeys(("running", "paused", "stopped"), 0)
        for container in self._containers.live.values():
            state = container.record.state
            counts[state.status if state.status in counts else "stopped"] += 1
        return counts

    async def info(self) -> dict[str, Any]:
        """GET /info."""
        return self._info((await self._names()).kernel)

    def _info(self, names: KernelState) -> dict[str, Any]:
        config = self._config()
        containers = self.containers()
        return {
            "ID": self._id,
            "Containers": sum(containers.values()),
            "ContainersRunning": containers["running"],
            "ContainersPaused": containers["paused"],
            "ContainersStopped": containers["stopped"],
            "Images": len(self._images.images),
            "Driver": "overlay2",
            "DriverStatus": [],
            "Plugins": {
                "Volume": [],
                "Network": ["bridge", "host", "null", "overlay"],
                "Authorization": None,
                "Log": ["json-file"],
            },
            "MemoryLimit": True,
            "IPv4Forwarding": True,
            "Debug": config.debug or config.log_level == "debug",
            "NFd": len(os.listdir("/proc/self/fd")),
            "OomKillDisable": False,
            "SystemTime": timestamp(),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "KernelVersion": platform.release(),
            "OperatingSystem": _operating_system(),
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "",
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "DockerRootDir": config.data_root,
            "Name": socket.gethostname(),
            "Labels": list(config.labels),
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": {os.path.basename(self._runtime): {"path": self._runtime}},
            "DefaultRuntime": os.path.basename(self._runtime),
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False},
            "LiveRestoreEnabled": True,
            **self._cluster(config),
            "Names": {
                "Kernel": names.program != 0,
                "Reason": names.reason,
                "AnsweredInKernel": names.answered,
                "PassedByKernel": names.passed,
            },
            "Isolation": "",
            "InitBinary": "",
            "SecurityOptions": [],
            "DefaultAddressPools": [{"Base": p.base, "Size": p.size} for p in config.default_address_pools],
            "Warnings": None,
        }

    def _cluster(self, config: Config) -> dict[str, str]:
        """The cluster's store, where there is one (fact 4.3)."""
        if not config.cluster_store:
            return {}
        return {"ClusterStore": config.cluster_store, "ClusterAdvertise": config.cluster_advertise}

    def disk_usage(self) -> dict[str, Any]:
        """GET /system/df."""
        images = list(self._images.images.values())
        return {
            "LayersSize": sum(i.size for i in images),
            "Images": [],
            "Containers": [],
            "Volumes": [],
            "BuildCache": [],
        }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
