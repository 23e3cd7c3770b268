"""What is mounted in a container: the kernel's file systems, the daemon's files, the user's binds and tmpfs."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netd.core.errors import InvalidParameter
from netd.launcher.spec import LaunchSpec
from netd.model.containers import Mount

Json = dict[str, Any]

INIT = "/sbin/docker-init"
_KERNEL: tuple[tuple[str, str, str, str], ...] = (
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev relatime"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
)


def mounts(spec: LaunchSpec, volumes: Path) -> list[Json]:
    """All mounts, parents before children; what the user mounts takes the place of a default.

    Makes missing host directories of `-v` (as Docker does) and of the image's volumes under `volumes`;
    raises `InvalidParameter` for a malformed one.
    """
    table: dict[str, Json] = {}
    for entry in (*_defaults(spec), *_image_volumes(spec, volumes), *_wanted(spec)):
        table[entry["destination"]] = entry
    return sorted(table.values(), key=lambda entry: len(Path(entry["destination"]).parts))


def image_volumes(spec: LaunchSpec, volumes: Path) -> dict[str, Path]:
    """Directory in the container -> directory on the host, for the volumes that the image declares."""
    taken = {entry["destination"] for entry in _wanted(spec)}
    targets = (_target(path) for path in spec.config.volumes or {})
    return {
        target: volumes / hashlib.sha256(target.encode()).hexdigest()[:12] for target in targets if target not in taken
    }


def _defaults(spec: LaunchSpec) -> Iterator[Json]:
    for target, kind, source, options in _KERNEL:
        words = [word for word in options.split() if not (spec.host_config.privileged and word == "ro")]
        yield {"destination": target, "type": kind, "source": source, "options": words}
    for target, path in spec.files.items():
        yield _bind(str(path), target, "rw")
    if program := init_program(spec):
        yield _bind(os.path.realpath(program), INIT, "ro")


def init_program(spec: LaunchSpec) -> str | None:
    """The host's static init, if the container is to have one and there is one; it appears as `INIT`."""
    return shutil.which("docker-init") if spec.host_config.init else None


def _image_volumes(spec: LaunchSpec, volumes: Path) -> Iterator[Json]:
    for target, path in image_volumes(spec, volumes).items():
        yield _bind(str(path), target, "rw")


def _wanted(spec: LaunchSpec) -> Iterator[Json]:
    host = spec.host_config
    for text in host.binds or []:
        yield _parsed(text)
    for mount in host.mounts or []:
        yield _mounted(mount)
    for target, options in (host.tmpfs or {}).items():
        yield _tmpfs(target, [option for option in options.split(",") if option])


def _parsed(text: str) -> Json:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    words = [word for word in options.split(",") if word]
    unknown = set(words) - {"ro", "rw", "z", "Z", "rprivate", "private", "rslave", "slave", "rshared", "shared"}
    if not source.startswith("/") or not target.startswith("/") or unknown:
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    # Docker makes a missing host directory, as root
    Path(source).mkdir(parents=True, exist_ok=True) if not Path(source).exists() else None
    propagation = next((word for word in words if word.endswith(("private", "slave", "shared"))), "rprivate")
    return _bind(source, _target(target), "ro" if "ro" in words else "rw", propagation)


def _mounted(mount: Mount) -> Json:
    access = "ro" if mount.read_only else "rw"
    if mount.type == "tmpfs":
        return _tmpfs(mount.target, [access])
    if mount.type != "bind":
        raise InvalidParameter(f'invalid mount config: mount type "{mount.type}" is not offered, use bind or tmpfs')
    if not Path(mount.source).exists():
        raise InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    return _bind(mount.source, _target(mount.target), access)


def _bind(source: str, target: str, access: str, propagation: str = "rprivate") -> Json:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", access, propagation]}


def _tmpfs(target: str, options: list[str]) -> Json:
    words = ["noexec", "nosuid", "nodev", *options]
    return {"destination": _target(target), "type": "tmpfs", "source": "tmpfs", "options": words}


def _target(path: str) -> str:
    clean = posixpath.normpath(path)
    if not path.startswith("/") or clean == "/":
        raise InvalidParameter(f"invalid mount target '{path}': it must be an absolute path other than '/'")
    return clean
