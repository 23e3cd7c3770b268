"""Images imported, named and removed while containers are made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netd.core.filters import Filters
from netd.images import store
from netd.images.unpack import Layer, unpack
from netd.model.containers import ContainerCreate, HostConfig
from netd.model.images import Image
from tests.fakes.calls import step
from tests.fakes.world import IMAGE
from tests.interleavings.engine import Operation, kill_and_load
from tests.interleavings.scene import BasicScene


@dataclass(frozen=True)
class State:
    """What is there beside the image `app`."""

    name: str
    names: tuple[str, ...]
    container: bool = False

    def make(self, root: Path) -> Images:
        return Images(root, self)

    def firsts(self) -> list[Operation[Images]]:
        return _OPERATIONS

    def seconds(self) -> list[Operation[Images]]:
        return _OPERATIONS


class Images(BasicScene):
    """The image `app` of a container or of none, and the image `lib`."""

    def __init__(self, root: Path, state: State) -> None:
        super().__init__(root)
        store.unpack = _unpacked
        self.lib = ""
        self.world.run(self._make(state))

    def close(self) -> None:
        store.unpack = unpack
        super().close()

    async def _make(self, state: State) -> None:
        self.lib = (await import_image(self, "lib", "latest")).id
        for name in state.names:
            await self.world.daemon.images.tag("app", *name.split(":"))
        if not state.container:
            await self.world.daemon.containers.remove(self.ids["old"], force=False, volumes=False, link=False)

    def named(self, name: str) -> list[str]:
        """The ids of the images that have a name."""
        return [image.id for image in self.world.daemon.images.images.values() if name in image.repo_tags]


STATES = {
    state.name: state
    for state in (
        State("one-name", ()),
        State("two-names", ("app:v1",)),
        State("in-use", ("app:v1",), container=True),
    )
}


async def _unpacked(chunks: AsyncIterator[bytes], directory: Path) -> Layer:
    async for _ in chunks:
        await step()
    return Layer("sha256:" + "2" * 64, 1)


async def _chunks() -> AsyncIterator[bytes]:
    yield b"tar"


async def import_image(scene: Images, repo: str, tag: str) -> Image:
    """A new image, or the name moved to it."""
    images = scene.world.daemon.images
    return await images.import_tar(_chunks(), repo=repo, tag=tag, message="", changes=[])


def _has_name(name: str) -> Callable[[Images, Image], str | None]:
    return lambda scene, image: None if scene.named(name) == [image.id] else f"{name} is {scene.named(name)}"


def _tag(repo: str, tag: str, *, lib: bool = False) -> Callable[[Images], Coroutine[Any, Any, Any]]:
    async def run(scene: Images) -> str:
        image = scene.lib if lib else f"sha256:{IMAGE}"
        await scene.world.daemon.images.tag(image, repo, tag)
        return image

    return run


def _is_called(name: str) -> Callable[[Images, str], str | None]:
    return lambda scene, image: None if scene.named(name) == [image] else f"{name} is {scene.named(name)}"


def _remove(ref: str, *, force: bool = False) -> Callable[[Images], Coroutine[Any, Any, Any]]:
    def run(scene: Images) -> Coroutine[Any, Any, Any]:
        return scene.world.daemon.images.remove(ref, force=force, in_use=scene.world.daemon.containers.made_of)

    return run


def _name_is_free(name: str) -> Callable[[Images, Any], str | None]:
    return lambda scene, _: f"{name} is {scene.named(name)}" if scene.named(name) else None


async def _create(scene: Images) -> str:
    body = ContainerCreate(image="app:latest", cmd=["serve"], host_config=HostConfig(network_mode="blue"))
    return (await scene.world.daemon.containers.create(body, "web"))[0]


def _is_there(scene: Images, id: str) -> str | None:
    return None if id in scene.world.daemon.records() else "it is not there"


async def _remove_container(scene: Images) -> None:
    await scene.world.daemon.containers.remove("old", force=False, volumes=False, link=False)


async def _prune(scene: Images) -> Sequence[Any]:
    images, in_use = scene.world.daemon.images, scene.world.daemon.containers.made_of
    return (await images.prune(Filters({"dangling": frozenset({"false"})}), in_use))[0]


_MOVING = frozenset({"tag lib app:latest", "import app:latest"})
_REMOVING = frozenset({"rmi app:latest", "rmi id", "rmi-f id", "prune"})

_OPERATIONS: list[Operation[Images]] = [
    Operation(
        "import app:latest",
        lambda scene: import_image(scene, "app", "latest"),
        _has_name("app:latest"),
        _MOVING | _REMOVING,
    ),
    Operation("tag app:v2", _tag("app", "v2"), _is_called("app:v2"), _REMOVING | {"tag lib app:v2"}),
    Operation("tag lib app:v2", _tag("app", "v2", lib=True), _is_called("app:v2"), _REMOVING | {"tag app:v2"}),
    Operation(
        "tag lib app:latest",
        _tag("app", "latest", lib=True),
        _is_called("app:latest"),
        _MOVING | _REMOVING,
    ),
    Operation("rmi app:latest", _remove("app:latest"), _name_is_free("app:latest"), _MOVING),
    Operation("rmi app:v1", _remove("app:v1"), _name_is_free("app:v1")),
    Operation("rmi id", _remove(IMAGE)),
    Operation("rmi-f id", _remove(IMAGE, force=True)),
    Operation("create", _create, _is_there),
    Operation("rm old", _remove_container),
    Operation("prune", _prune),
    Operation("dies", kill_and_load, asks=False),
]
