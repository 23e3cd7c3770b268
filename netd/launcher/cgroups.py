"""A container's control groups, found and removed by path. cgroups(7); v1, v2 and the hybrid of both."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class Cgroups:
    """The groups below `parent` (an absolute cgroup path, one per daemon), in every mounted hierarchy."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.roots = [root / parent.lstrip("/") for root in hierarchies()]

    def path(self, container: str) -> str:
        """What the runtime is told as `cgroupsPath`."""
        return f"{self.parent}/{container}"

    def containers(self) -> set[str]:
        """Ids that have a group."""
        found: set[str] = set()
        for root in self.roots:
            with suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(root) if entry.is_dir())
        return found

    def processes(self, container: str) -> set[int]:
        """Every process of the container, seen from here."""
        pids: set[int] = set()
        for root in self.roots:
            for directory, _, _ in os.walk(root / container):
                with suppress(OSError):
                    pids.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
        return pids

    def has(self, container: str, pid: int) -> bool:
        """Whether `pid` is now a process of this container: a container id is never used again, a pid is."""
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            return any(f"{self.path(container)}/" in f"{line}/" for line in lines)
        return False

    def thaw(self, container: str) -> None:
        """Let a paused container run on, so that it can die. v1 freezer; in v2 a frozen process can be killed."""
        for root in self.roots:
            with suppress(OSError):
                (root / container / "freezer.state").write_text("THAWED")

    def frozen(self, container: str) -> bool:
        """Whether it is paused. v1 freezer, where it may take a moment to freeze; v2 cgroup.freeze."""
        for root in self.roots:
            with suppress(OSError):
                if (root / container / "freezer.state").read_text().strip() != "THAWED":
                    return True
            with suppress(OSError):
                if (root / container / "cgroup.freeze").read_text().strip() == "1":
                    return True
        return False

    def remove(self, container: str) -> bool:
        """Remove the container's groups; False if a process is still in one."""
        removed = [_remove_tree(root / container) for root in self.roots]
        return all(removed)

    def parents(self) -> list[Path]:
        """The directories of the parent group that exist."""
        return [root for root in self.roots if root.exists()]

    def remove_parent(self) -> None:
        """Remove the parent groups if no container is left in them."""
        for root in self.roots:
            with suppress(OSError):
                root.rmdir()


def hierarchies() -> list[Path]:
    """Where the cgroup hierarchies are mounted."""
    found = []
    with open("/proc/self/mounts") as table:
        for line in table:
            fields = line.split()
            if fields[2] in ("cgroup", "cgroup2"):
                found.append(Path(fields[1]))
    return found


def _remove_tree(root: Path) -> bool:
    directories = [Path(directory) for directory, _, _ in os.walk(root)]
    for directory in reversed(directories):
        with suppress(FileNotFoundError):
            try:
                directory.rmdir()
            except OSError:
                return False
    return True
