"""Taking things away: idempotent, and going on after errors."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from netd.launcher import overlayfs, syscalls
from netd.launcher.spec import LaunchError

PATIENCE = 1.0  # seconds for a conmon whose process has ended to note its exit code


def remove_bundle(bundle: Path) -> None:
    """Unmount a container's root file system and remove its bundle."""
    overlayfs.unmount(bundle / "rootfs")
    remove_tree(bundle)


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it; absent is fine."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        # somebody else removed a part of it meanwhile: see whether anything is left
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise LaunchError(f"cannot remove {path}")


def make_volume(root: Path, target: str, path: Path) -> None:
    """A volume that the image declares starts as a copy of what the image has there."""
    if path.exists():
        return
    fresh = path.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        source = syscalls.open_in_root(str(root), target, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        fresh.chmod(0o755)
    else:
        try:
            fresh.chmod(stat.S_IMODE(os.fstat(source).st_mode))
            copy = ["cp", "-a", f"/proc/self/fd/{source}/.", str(fresh)]
            subprocess.run(copy, pass_fds=[source], check=True, capture_output=True)
        finally:
            os.close(source)
    fresh.rename(path)
