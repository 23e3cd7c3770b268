"""A launcher with roots of its own and an image of the host's busybox; nothing of it may be left after a test."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from netd.launcher import Launcher, LaunchSpec, overlayfs, processes
from netd.launcher.streams import Streams
from netd.model.containers import ContainerConfig, HostConfig

T = TypeVar("T")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox, root and a user bob."""
    root = tmp_path_factory.mktemp("image") / "rootfs"
    for directory in ("bin", "etc", "tmp", "data"):
        (root / directory).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nbob:x:1000:\nwheel:x:10:bob\n")
    (root / "data/seed").write_text("from the image\n")
    return root


class Lab:
    """Shorthands for the tests; `launcher` may be replaced, as a restarted daemon would."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.directory = directory
        self.image = image
        self.launcher = self.new_launcher()
        self.ids: list[str] = []

    def new_launcher(self) -> Launcher:
        # another runtime than the default one can be tried with NETD_TEST_RUNTIME
        runtime = os.environ.get("NETD_TEST_RUNTIME")
        return Launcher(self.directory / "data", self.directory / "exec", runtime)

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await scenario

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(bounded())

    def spec(self, *command: str, host: HostConfig | None = None, **settings: Any) -> LaunchSpec:
        spec = LaunchSpec(
            id=os.urandom(32).hex(),
            name="test",
            rootfs=self.image,
            config=ContainerConfig(cmd=list(command), **settings),
            host_config=host or HostConfig(auto_remove=True),
            hostname="box",
        )
        self.ids.append(spec.id)
        return spec

    async def start(self, *command: str, **settings: Any) -> str:
        """The id of a container that runs `command`."""
        spec = self.spec(*command, **settings)
        await self.launcher.create(spec)
        await self.launcher.start(spec.id)
        return spec.id

    async def output(self, *command: str, **settings: Any) -> str:
        """What `command` prints in a container of its own, both streams."""
        id = await self.start(*command, **settings)
        await self.launcher.wait(id)
        text = await collect(self.launcher.logs(id))
        await self.remove(id)
        return text

    async def remove(self, id: str) -> None:
        await self.launcher.delete(id)
        await self.launcher.discard(id)

    async def remove_all(self) -> None:
        for id in self.ids:
            await self.remove(id)

    def leftovers(self) -> list[str]:
        """Everything of any container that still exists."""
        roots = [
            self.directory / "exec/containers",
            self.directory / "exec/runtime",
            self.directory / "data/containers",
        ]
        found = [str(path) for root in roots if root.exists() for path in root.iterdir()]
        found += map(str, overlayfs.mounts_below(self.directory))
        found += [f"cgroup {id}" for id in self.launcher.cgroups.containers()]
        found += [f"cgroup {path}" for path in self.launcher.cgroups.parents()]
        for pid in processes.all_pids():
            if any(str(self.directory) in word for word in processes.command_line(pid)):
                found.append(f"process {pid} {processes.command_line(pid)}")
        return found


@pytest.fixture
def lab(tmp_path: Path, image: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, image)
    yield lab
    lab.run(lab.remove_all())
    assert lab.leftovers() == []


async def collect(frames: AsyncIterator[tuple[int, bytes]]) -> str:
    """All output as text."""
    return b"".join([data async for _, data in frames]).decode()


async def read_until(streams: Streams, text: str) -> str:
    """Output up to and including `text`."""
    seen = ""
    async for _, data in streams.frames():
        seen += data.decode()
        if text in seen:
            return seen
    raise AssertionError(f"output ended without {text!r}: {seen!r}")
