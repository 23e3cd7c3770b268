"""A real Docker engine to compare with: Debian's docker.io, private to one network and mount namespace."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.daemon.harness import NO_PROXY, Daemon

# dockerd keeps sockets and locks of its own below /run, whatever roots it is given
START = 'mount -t tmpfs private-run /run && exec "$@"'


class DockerEngine(Daemon):
    """Started, asked and removed like a netd; only its command line differs."""

    def command(self) -> list[str]:
        return self.host.inside(
            self.host.name,
            *("unshare", "--mount", "sh", "-c", START, "sh", "dockerd", f"--host=unix://{self.socket}"),
            *(f"--data-root={self.data_root}", f"--exec-root={self.exec_root}", f"--pidfile={self.directory}/pid"),
            *("--storage-driver=overlay2", f"--config-file={self.config}", *self.options),
        )

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.remove_containers()
            self.process.terminate()  # takes its containerd along
            self.process.wait(timeout=30)
        super().remove()


def version() -> str:
    """What `dockerd --version` says; empty if there is none."""
    try:
        return subprocess.run(
            ["dockerd", "--version"], capture_output=True, text=True, check=True, env=NO_PROXY
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def image_file(folder: Path) -> Path:
    """The busybox image for both engines."""
    path = folder / "busybox.tar"
    script = Path(__file__).parents[1] / "scripts" / "busybox-image"
    with path.open("wb") as tar:
        subprocess.run([str(script)], stdout=tar, check=True)
    return path
