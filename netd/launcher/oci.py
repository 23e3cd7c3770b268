"""A container as the OCI runtime wants it: config.json, with Docker's defaults. OCI runtime specification 1.0.2.

There is no seccomp profile: what Docker's default profile forbids is bounded here by capabilities, masked
paths and the device list only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from netd.core.errors import InvalidParameter
from netd.launcher.mounts import INIT, init_program, mounts
from netd.launcher.spec import ExecSpec, LaunchSpec
from netd.launcher.users import User, resolve
from netd.model.containers import HostConfig

Json = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STDIN = "netd.stdin"  # annotation: none | once (ends with its first writer) | open

DEFAULT_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
    "KILL AUDIT_WRITE"
).split()
# <linux/capability.h>, in the order of their numbers
ALL_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
MASKED_PATHS = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def config(spec: LaunchSpec, root: Path, volumes: Path, cgroup: str) -> Json:
    """The whole config.json: `root` is the mounted root file system, `volumes` where the image's own volumes
    live, `cgroup` the absolute cgroup path. Raises `LaunchError`, `InvalidParameter`."""
    privileged = spec.host_config.privileged
    return {
        "ociVersion": "1.0.2",
        "hostname": "" if spec.host_config.uts_mode == "host" else spec.hostname,
        "root": {"path": str(root), "readonly": spec.host_config.readonly_rootfs},
        "process": _process(spec, root),
        "mounts": mounts(spec, volumes),
        "annotations": {STDIN: _stdin(spec)},
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": _namespaces(spec),
            "resources": _resources(spec),
            "sysctl": _sysctls(spec),
            "devices": _host_devices() if privileged else [],
            "maskedPaths": [] if privileged else MASKED_PATHS,
            "readonlyPaths": [] if privileged else READONLY_PATHS,
            "rootfsPropagation": "rprivate",
        },
    }


def exec_process(container: Json, spec: ExecSpec, root: Path) -> Json:
    """The process of an exec session: the container's own (from its config.json) with what `spec` says instead."""
    process: Json = dict(container["process"])
    if spec.user:
        user = resolve(root, spec.user)
        process["user"] = _user(user)
        process["env"] = _merged(process["env"], [f"HOME={user.home}"])
    if spec.privileged:
        process["capabilities"] = _capabilities_for(process["user"]["uid"], _known_capabilities())
    elif spec.user:
        process["capabilities"] = _capabilities_for(process["user"]["uid"], process["capabilities"]["bounding"])
    terminal = ["TERM=xterm"] if spec.tty else []
    return process | {
        "args": list(spec.args),
        "terminal": spec.tty,
        "cwd": spec.working_dir or process["cwd"],
        "env": _merged(process["env"], [*terminal, *spec.env]),
    }


def _process(spec: LaunchSpec, root: Path) -> Json:
    container, host = spec.config, spec.host_config
    user = resolve(root, container.user)
    args = [*(container.entrypoint or []), *(container.cmd or [])]
    if not args:
        raise InvalidParameter("no command specified")
    env = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={spec.hostname}", f"HOME={user.home}"]
    names = _known_capabilities() if host.privileged else _capabilities(host.cap_add, host.cap_drop)
    return {
        "terminal": container.tty,
        "user": _user(user),
        "args": [INIT, "--", *args] if init_program(spec) else args,
        "env": _merged([*env, *(["TERM=xterm"] if container.tty else [])], container.env or []),
        "cwd": container.working_dir or "/",
        "capabilities": _capabilities_for(user.uid, names),
        "oomScoreAdj": 0,
    }


def _user(user: User) -> Json:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


def _merged(defaults: list[str], own: list[str]) -> list[str]:
    """Environment of `defaults` overridden by `own`; a bare name in `own` removes the variable, as in Docker."""
    values: dict[str, str | None] = {}
    for entry in [*defaults, *own]:
        name, equals, value = entry.partition("=")
        values[name] = value if equals else None
    return [f"{name}={value}" for name, value in values.items() if value is not None]


def _stdin(spec: LaunchSpec) -> str:
    if not spec.config.open_stdin:
        return "none"
    # a terminal has no end of input: closing it would only shut out the next one to attach
    return "once" if spec.config.stdin_once and not spec.config.tty else "open"


def _capabilities(add: list[str] | None, drop: list[str] | None) -> list[str]:
    known = _known_capabilities()
    added, dropped = _capability_names(add), _capability_names(drop)
    for name in (added | dropped) - {*known, "CAP_ALL"}:
        raise InvalidParameter(f'invalid capability: unknown capability: "{name}"')
    kept = set(known) if "CAP_ALL" in added else {f"CAP_{name}" for name in DEFAULT_CAPABILITIES}
    if "CAP_ALL" in dropped:
        kept = set()
    else:
        kept -= dropped
    return [name for name in known if name in kept | added - dropped]


def _capability_names(names: list[str] | None) -> set[str]:
    return {f"CAP_{name.upper().removeprefix('CAP_')}" for name in names or []}


def _known_capabilities() -> list[str]:
    """Those the daemon itself has: it cannot give away others."""
    status = Path("/proc/self/status").read_text()
    mask = int(status.partition("CapEff:")[2].split(None, 1)[0], 16)
    return [f"CAP_{name}" for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1]


def _capabilities_for(uid: int, names: list[str]) -> Json:
    """Only root gets them; another user may gain them through set-user-id programs."""
    held = names if uid == 0 else []
    return {"bounding": names, "effective": held, "permitted": held}


def _namespaces(spec: LaunchSpec) -> list[Json]:
    namespaces: list[Json] = [{"type": kind} for kind in ("pid", "mount", "ipc")]
    if spec.host_config.uts_mode != "host":
        namespaces.append({"type": "uts"})
    if spec.netns is not None:
        namespaces.append({"type": "network", "path": spec.netns})
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers") and not spec.host_config.privileged:
        namespaces.append({"type": "cgroup"})
    return namespaces


def _sysctls(spec: LaunchSpec) -> dict[str, str]:
    sysctls: dict[str, str] = {}
    if spec.netns is not None:
        # as Docker: any user in the container may ping and bind low ports
        sysctls["net.ipv4.ping_group_range"] = "0 2147483647"
        sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
    if spec.domainname and spec.host_config.uts_mode != "host":
        sysctls["kernel.domainname"] = spec.domainname
    return sysctls | (spec.host_config.sysctls or {})


def _resources(spec: LaunchSpec) -> Json:
    return {"devices": [{"allow": spec.host_config.privileged, "access": "rwm"}], **limits(spec.host_config)}


def limits(host: HostConfig) -> Json:
    """What a container may use, in linux.resources form."""
    resources: Json = {}
    if host.memory > 0:
        resources["memory"] = {"limit": host.memory}
    if host.nano_cpus > 0:
        resources["cpu"] = {"period": 100_000, "quota": host.nano_cpus // 10_000}
    if host.pids_limit is not None and host.pids_limit != 0:
        resources["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    return resources


def _host_devices() -> list[Json]:
    """The device nodes of the host, for a privileged container, in linux.devices form."""
    devices = []
    for entry in os.scandir("/dev"):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            devices.append(_device(entry.path, status))
    return devices


def _device(path: str, status: os.stat_result) -> Json:
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
