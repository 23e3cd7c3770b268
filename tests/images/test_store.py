"""Images when two calls meet, and when the store or the disk fails half-way."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.contract import Entry, Store, StoreError
from netd.core.errors import Conflict, NetdError, NotFound
from netd.core.filters import Filters
from netd.images import store
from netd.images.store import ImageStore, Removal
from netd.images.unpack import Layer
from netd.model.images import Image

ALL = Filters({"dangling": frozenset({"false"})})


class MemoryStore:
    """A store in memory. Every write lets others go on before and after it takes effect, and can be made to fail."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.fails: Callable[[str], bool] = lambda verb: False
        self.writing = asyncio.Event()
        self._versions = itertools.count(1)

    async def list(self, prefix: str) -> list[Entry]:
        return [entry for key, entry in sorted(self.entries.items()) if key.startswith(prefix)]

    async def create(self, key: str, value: bytes) -> Entry:
        return await self._write("create", key, value)

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        return await self._write("cas", key, value)

    async def delete(self, key: str) -> None:
        await self._write("delete", key, None)

    async def _write(self, verb: str, key: str, value: bytes | None) -> Entry:
        self.writing.set()
        await asyncio.sleep(0)
        if self.fails(verb):
            raise StoreError("the disk is full")
        entry = self.entries[key] = Entry(key, value or b"", next(self._versions))
        if value is None:
            del self.entries[key]
        await asyncio.sleep(0)
        return entry


class World:
    """An image store with containers that are made of its images."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryStore()
        self.images = ImageStore(directory, cast(Store, self.store))
        self.containers: dict[str, str] = {}  # id -> image id

    def in_use(self, image_id: str) -> list[str]:
        return [container for container, image in self.containers.items() if image == image_id]

    async def add(self, *names: str) -> Image:
        """An image with these names."""

        async def nothing() -> AsyncIterator[bytes]:
            yield b""

        first, *others = names or ("",)
        image = await self.images.import_tar(nothing(), repo=first, tag="", message="", changes=[])
        for name in others:
            await self.images.tag(image.id, name, "")
        return self.images.find(image.id)

    async def remove(self, ref: str, *, force: bool = False) -> list[Removal]:
        return await self.images.remove(ref, force=force, in_use=self.in_use)

    async def prune(self) -> None:
        await self.images.prune(ALL, self.in_use)

    async def create(self, ref: str) -> None:
        """As a container is created: it takes a while until its record is there."""
        with self.images.hold(ref) as image:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.containers[f"{len(self.containers):064}"] = image.id

    def names(self) -> list[str]:
        return sorted(name for image in self.images.images.values() for name in image.repo_tags)

    def files(self) -> set[str]:
        return {path.name for path in (self.directory / "images").iterdir()}

    def check(self) -> None:
        """Memory, store and disk tell the same; no name means two images; no container is without its image."""
        keys = set(self.images.images)
        assert {key.removeprefix("images/") for key in self.store.entries} == keys == self.files()
        assert max(Counter(self.names()).values(), default=0) <= 1
        for image_id in self.containers.values():
            self.images.find(image_id)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    """Makes worlds in which files are made and removed at once, so that only the store takes time."""

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def unpack(chunks: AsyncIterator[bytes], directory: Path) -> Layer:
        (directory / "file").touch()
        return Layer("sha256:" + "0" * 64, 0)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(store, "unpack", unpack)
    numbers = itertools.count()
    return lambda: World(tmp_path / str(next(numbers)))


Worlds = Callable[[], World]


def test_two_removals_of_an_images_names_take_both(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        image = await here.add("a", "b")
        first, second = await asyncio.gather(here.remove("a"), here.remove("b"))
        assert first == [Removal(untagged="a:latest")]
        assert second[0] == Removal(untagged="b:latest") and second[1] == Removal(deleted=image.id)
        here.check()
        assert not here.images.images

    asyncio.run(scenario())


def test_an_image_is_held_while_a_container_is_made_of_it(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        image = await here.add("a")
        with here.images.hold("a") as held:
            assert held == image
            for ref in ("a", image.id):
                with pytest.raises(Conflict, match="a container that is being created"):
                    await here.remove(ref)
            await here.prune()
            assert here.images.find("a") == image
            assert await here.remove("a", force=True) == [Removal(untagged="a:latest")]
            assert here.images.rootfs(image).exists()
        assert (await here.remove(image.id))[0] == Removal(deleted=image.id)
        here.check()

    asyncio.run(scenario())


def test_an_image_that_is_being_removed_is_not_found(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        image = await here.add("a")
        here.store.writing.clear()
        removing = asyncio.create_task(here.remove("a"))
        await here.store.writing.wait()
        for ref in ("a", image.id, image.id[7:19]):
            with pytest.raises(NotFound, match="No such image"), here.images.hold(ref):
                pass
        assert not here.images.list(Filters())
        with pytest.raises(NotFound):
            await here.images.tag(image.id, "b", "")
        await removing
        here.check()
        assert not here.images.images

    asyncio.run(scenario())


def test_a_name_means_an_image_at_every_moment_of_its_move(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        await here.add("a")
        importing = asyncio.create_task(here.add("a"))
        while not importing.done():
            here.images.find("a")
            await asyncio.sleep(0)
        assert here.images.find("a") == await importing

    asyncio.run(scenario())


def test_an_image_whose_record_cannot_be_deleted_stays_whole(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        image = await here.add("a")
        here.store.fails = lambda verb: verb == "delete"
        with pytest.raises(StoreError):
            await here.remove("a")
        assert here.images.find("a") == image
        assert (here.images.rootfs(image) / "file").exists()
        await here.prune()
        here.check()
        here.store.fails = lambda verb: False
        await here.remove("a")
        here.check()

    asyncio.run(scenario())


def test_files_that_cannot_be_removed_go_at_the_next_start(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(16, "Device or resource busy", str(path))

    async def scenario() -> None:
        here = world()
        image = await here.add("a")
        with monkeypatch.context() as broken:
            broken.setattr(shutil, "rmtree", refuse)
            assert Removal(deleted=image.id) in await here.remove("a")
        assert "are removed at the next start of the daemon" in caplog.text
        assert here.files()
        await ImageStore(here.directory, cast(Store, here.store)).load()
        here.check()
        assert not here.files()

    asyncio.run(scenario())


def test_the_files_of_an_image_whose_record_cannot_be_read_are_left_alone(world: Worlds) -> None:
    async def scenario() -> None:
        w = world()
        image = await w.add("app:1")
        key = f"images/{image.id.removeprefix('sha256:')}"
        w.store.entries[key] = Entry(key, b"{", w.store.entries[key].version)
        w.images = ImageStore(w.directory, cast(Store, w.store))
        await w.images.load()
        assert not w.images.images
        assert w.files() == {image.id.removeprefix("sha256:")}

    asyncio.run(scenario())


@pytest.mark.parametrize("failing", ["create", "cas"])
def test_an_import_that_cannot_be_stored_leaves_nothing_and_takes_no_name(world: Worlds, failing: str) -> None:
    async def scenario() -> None:
        here = world()
        image = await here.add("a")
        here.store.fails = lambda verb: verb == failing
        with pytest.raises(StoreError):
            await here.add("a")
        assert here.images.images == {image.id.removeprefix("sha256:"): image}
        here.check()

    asyncio.run(scenario())


def test_a_name_that_cannot_be_taken_away_is_not_given_to_another(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        image, other = await here.add("a"), await here.add("b")
        writes = itertools.count()
        here.store.fails = lambda verb: next(writes) == 1
        with pytest.raises(StoreError):
            await here.images.tag("a", "b", "")
        assert (here.images.find("a"), here.images.find("b")) == (image, other)
        here.check()

    asyncio.run(scenario())


def test_a_prune_goes_on_when_an_image_goes_meanwhile_or_cannot_be_deleted(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        first, second, third = [await here.add() for _ in range(3)]
        deletions = itertools.count()
        here.store.fails = lambda verb: verb == "delete" and next(deletions) == 1
        _, (removals, _freed) = await asyncio.gather(here.remove(first.id), here.images.prune(Filters(), here.in_use))
        assert removals == [Removal(deleted=third.id), Removal(deleted=third.layer)]
        assert here.images.list(Filters()) == [second]
        here.check()

    asyncio.run(scenario())


def test_a_prune_leaves_what_is_named_in_use_or_does_not_pass(world: Worlds) -> None:
    async def scenario() -> None:
        here = world()
        named, used, unused = await here.add("a"), await here.add("b"), await here.add()
        await here.create("b")
        removals, _ = await here.images.prune(Filters({"label": frozenset({"x"})}), here.in_use)
        assert removals == []
        removals, _ = await here.images.prune(Filters(), here.in_use)
        assert removals[0] == Removal(deleted=unused.id)
        removals, _ = await here.images.prune(ALL, here.in_use)
        assert removals[:2] == [Removal(untagged="a:latest"), Removal(deleted=named.id)]
        assert here.images.list(Filters()) == [used]
        here.check()

    asyncio.run(scenario())


Calls = dict[str, Callable[[World], Coroutine[Any, Any, object]]]
CALLS: Calls = {
    "create": lambda here: here.create("a"),
    "import": lambda here: here.add("a"),
    "prune": lambda here: here.prune(),
    "remove a": lambda here: here.remove("a"),
    "remove b": lambda here: here.remove("b"),
    "force": lambda here: here.remove("a", force=True),
    "tag": lambda here: here.images.tag("a", "c", ""),
    "take": lambda here: here.images.tag("other", "a", ""),
}


@pytest.mark.parametrize("failing", ["", "create", "cas", "delete"])
@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("second", CALLS)
def test_any_two_calls_may_meet_at_any_point(world: Worlds, first: str, second: str, failing: str) -> None:
    async def scenario(steps: int) -> bool:
        here = world()
        await here.add("a", "b")
        await here.add("other")
        here.store.fails = lambda verb: verb == failing
        one = asyncio.create_task(CALLS[first](here))
        for _ in range(steps):
            await asyncio.sleep(0)
        met = not one.done()
        outcomes = await asyncio.gather(one, CALLS[second](here), return_exceptions=True)
        assert all(not isinstance(each, BaseException) or isinstance(each, NetdError | StoreError) for each in outcomes)
        here.check()
        tagged = "tag" in (first, second) and outcomes[(first, second).index("tag")] is None
        if tagged and {first, second} <= {"create", "import", "remove b", "tag", "take"}:
            assert "c:latest" in here.names()
        return met

    steps = 0
    while asyncio.run(scenario(steps)):
        steps += 1
