"""What the launcher is asked for and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from netd.core.errors import NetdError
from netd.model.containers import ContainerConfig, HostConfig

NOT_EXECUTABLE = 126
NOT_FOUND = 127
KILLED = 137


class LaunchError(NetdError):
    """A container or a command in it could not be started, signalled or cleaned up.

    `exit_code` is what Docker reports for it: 126 the command cannot be executed, 127 it was not found,
    128 anything else. The first two are the request's fault (status 400), the others ours (500).
    """

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        if exit_code in (NOT_EXECUTABLE, NOT_FOUND):
            self.status = 400


class Unkillable(LaunchError):
    """A killed process does not end: it is in uninterruptible sleep, and does when the kernel lets it, if ever."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One container to be made: `config` is already merged with its image's, `rootfs` is the image's read-only
    tree, `netns` the path of its network namespace (None: the host's), `files` host files to appear in it."""

    id: str
    name: str
    rootfs: Path
    config: ContainerConfig
    host_config: HostConfig
    hostname: str = ""
    domainname: str = ""
    netns: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One more command in a running container. Empty members are taken from the container's own process."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended; `finished_at` is RFC 3339 in UTC with nanoseconds."""

    exit_code: int
    finished_at: str
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs; `pid` is that of its first process, seen from here; `paused`: it is frozen."""

    pid: int
    paused: bool = False
