"""The container's root: its image below, a writable layer of its own above. Kernel: overlayfs.rst."""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netd.launcher import syscalls
from netd.launcher.spec import LaunchError


@dataclass(frozen=True, slots=True)
class Overlay:
    """`lower` (read-only) and `upper` (writable) seen as one at `merged`; `work` is the kernel's own scratch space.

    With `volatile` the kernel does not write the upper layer out at unmount (many milliseconds on a busy disk):
    for layers that are thrown away with the container.
    """

    lower: Path
    upper: Path
    work: Path
    merged: Path
    volatile: bool = False

    def mount(self) -> None:
        """Mount it, making what directories are missing."""
        for directory in (self.upper, self.work, self.merged):
            directory.mkdir(parents=True, exist_ok=True)
        os.chmod(self.upper, self.lower.stat().st_mode & 0o7777)
        # left by an earlier volatile mount; the kernel refuses to mount while it is there
        shutil.rmtree(self.work / "work" / "incompat", ignore_errors=True)
        try:
            syscalls.mount("overlay", str(self.merged), "overlay", 0, self._options())
        except OSError as error:
            raise LaunchError(self._explain(error)) from error

    def _options(self) -> str:
        layers = (("lowerdir", self.lower), ("upperdir", self.upper), ("workdir", self.work))
        options = [f"{key}={_escaped(path)}" for key, path in layers]
        return ",".join([*options, "volatile"] if self.volatile else options)

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EINVAL and filesystem(self.upper) == "overlay":
            return (
                f"cannot make the container's writable layer: {self.upper} is itself on overlayfs, which the kernel "
                "does not accept as an upper layer; put the data root on another file system"
            )
        return f"cannot mount the container's root file system at {self.merged}: {error.strerror}"


def unmount(merged: Path) -> None:
    """Unmount what is mounted at `merged`, however often; nothing there is fine."""
    with suppress(FileNotFoundError):
        while True:
            try:
                syscalls.unmount(str(merged))
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return
                if error.errno != errno.EBUSY:
                    raise
                syscalls.unmount(str(merged), syscalls.MNT_DETACH)


def mounts_below(root: Path) -> list[Path]:
    """Mount points below `root` in this mount namespace. /proc/self/mountinfo, proc(5)."""
    prefix = f"{root}/"
    with open("/proc/self/mountinfo") as table:
        points = (_unescaped(line.split(" ", 5)[4]) for line in table)
        return [Path(point) for point in points if point.startswith(prefix)]


def filesystem(path: Path) -> str:
    """The type of the file system that `path` is on."""
    real = os.path.realpath(path)
    best, kind = "", ""
    with open("/proc/self/mountinfo") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            point = _unescaped(left.split(" ")[4])
            if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
                best, kind = point, right.split(" ", 1)[0]
    return kind


def _escaped(path: Path) -> str:
    return re.sub(r"([\\:,])", r"\\\1", str(path))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
