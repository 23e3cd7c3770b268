"""What the client's tests talk to: a recording stand-in, and a real engine where one is to be had.

`engine` is a real Docker engine of the test's own; NETD_TEST_ENGINE=unix:///path points it at another daemon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.recorder import Recorder

STOCK = shutil.which("docker")


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A daemon that writes down what it is asked and says yes."""
    with Recorder(tmp_path / "api.sock") as server:
        yield server


@pytest.fixture(scope="session")
def stock() -> str:
    """The path of the stock docker client."""
    if STOCK is None:
        pytest.skip("no docker client on PATH to compare with")
    return STOCK


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """DOCKER_HOST of an engine that has the image `busybox`."""
    if given := os.environ.get("NETD_TEST_ENGINE"):
        yield given
        return
    dockerd, busybox = shutil.which("dockerd"), shutil.which("busybox")
    if os.geteuid() != 0 or dockerd is None or busybox is None:
        pytest.skip("needs root, dockerd and a static busybox (Debian: docker.io, busybox-static)")
    root = tmp_path_factory.mktemp("engine")
    host = f"unix://{root}/docker.sock"
    with _dockerd(dockerd, root, host):
        _import_busybox(busybox, root / "image", host)
        yield host


@contextlib.contextmanager
def _dockerd(dockerd: str, root: Path, host: str) -> Iterator[None]:
    options = f"--data-root {root}/data --exec-root {root}/exec --pidfile {root}/pid -H {host}"
    # a /run of its own keeps its containerd apart from any other, a network of its own what it forbids to forward
    script = f"mount -t tmpfs tmpfs /run && ip link set lo up && exec {dockerd} {options} --storage-driver overlay2"
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-c", script], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while netd(host, "version").returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"dockerd does not start here: {(root / 'log').read_text()[-400:]}")
            time.sleep(0.1)
        yield
    finally:
        ids = netd(host, "ps", "-aq").stdout.split()
        netd(host, "rm", "-f", *ids)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _import_busybox(busybox: str, root: Path, host: str) -> None:
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox.real")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (root / "bin" / applet).symlink_to("busybox.real")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    archive = shutil.make_archive(str(root), "tar", root)
    done = netd(host, "import", "-c", "ENV PATH=/bin", "-c", 'CMD ["sh"]', archive, "busybox")
    assert done.returncode == 0, done.stderr


def netd(host: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs our client."""
    return _run([sys.executable, "-m", "netd"], host, arguments, stdin)


def docker(host: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the stock client."""
    return _run([str(STOCK)], host, arguments, stdin)


def _run(program: list[str], host: str, arguments: tuple[str, ...], stdin: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKER_HOST": host, "NETD_HOST": host, "DOCKER_CONFIG": "/nonexistent"}
    return subprocess.run(
        [*program, *arguments], env=environment, input=stdin, capture_output=True, text=True, timeout=60
    )
