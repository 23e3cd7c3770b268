"""Images: imported, named, shown, removed, and whole after a crash."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kvstore.sqlite import SqliteStore
from netd.core.errors import Conflict, InvalidParameter, NotFound
from netd.core.filters import Filters
from netd.images import view
from netd.images.store import ImageStore, Removal
from netd.model.images import Image

Scenario = Callable[[ImageStore], Coroutine[Any, Any, None]]


def archive(**files: str) -> bytes:
    """A tar archive of these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(text), 0o640, 7, 8
            tar.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def add(images: ImageStore, name: str = "", data: bytes = b"", *changes: str) -> Image:
    repo, _, tag = name.partition(":")
    data = data or archive(file="x" + name)
    return await images.import_tar(chunks(data), repo=repo, tag=tag, message="", changes=list(changes))


def in_store(directory: Path, *scenarios: Scenario) -> None:
    """Each scenario on the store as a new daemon finds it."""

    async def run() -> None:
        for scenario in scenarios:
            store = await SqliteStore.open(directory / "store")
            try:
                images = ImageStore(directory, store)
                await images.load()
                await scenario(images)
            finally:
                await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def nobody(_: str) -> list[str]:
    return []


def test_an_image_has_the_files_and_the_configuration_and_survives_a_restart(tmp_path: Path) -> None:
    data = archive(file="text")

    async def first(images: ImageStore) -> None:
        image = await add(images, "shop/web:1", data, "CMD echo hi", "ENV A=b", "expose 80 53/udp")
        assert image.repo_tags == ["shop/web:1"]
        assert image.size == 4

    async def second(images: ImageStore) -> None:
        image = images.find("shop/web:1")
        path = images.rootfs(image) / "file"
        status = path.stat()
        assert path.read_text() == "text"
        if os.geteuid() == 0:
            assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 7, 8)
        image = images.find(image.id[7:19])
        shown = view.inspect(image, images.rootfs(image))
        assert shown["Id"] == image.id
        assert shown["RepoTags"] == ["shop/web:1"]
        assert shown["Comment"] == "Imported from -"
        assert shown["RootFS"]["Layers"] == ["sha256:" + hashlib.sha256(data).hexdigest()]
        assert shown["Config"]["Cmd"] == ["/bin/sh", "-c", "echo hi"]
        assert shown["Config"]["Env"] == ["A=b"]
        assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}

    in_store(tmp_path, first, second)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, "zstd"])
def test_compressed_archives_are_recognised(tmp_path: Path, compress: Any) -> None:
    data = archive(file="text" * 10000)
    if compress == "zstd":
        if not shutil.which("zstd"):
            pytest.skip("zstd is not installed")
        packed = subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout
    else:
        packed = compress(data)

    async def scenario(images: ImageStore) -> None:
        image = await add(images, "x", packed)
        assert image.layer == "sha256:" + hashlib.sha256(data).hexdigest()

    in_store(tmp_path, scenario)


def truncated() -> bytes:
    return archive(file="x" * 10000)[:3000]


@pytest.mark.parametrize(
    "data",
    [b"this is not a tar archive" * 100, truncated(), gzip.compress(truncated(), mtime=0), b"\x1f\x8bjunk" * 9],
    ids=["text", "truncated", "truncated and compressed", "only a gzip header"],
)
def test_what_is_not_an_archive_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    async def scenario(images: ImageStore) -> None:
        with pytest.raises(InvalidParameter, match="invalid archive"):
            await add(images, "x", data)
        assert list((tmp_path / "images").iterdir()) == []
        assert list(images.list(Filters())) == []

    in_store(tmp_path, scenario)


def test_no_member_leads_out_of_the_image(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        for name in ("link/evil", "../../evil", "/evil"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))

    async def scenario(images: ImageStore) -> None:
        with contextlib.suppress(InvalidParameter):
            await add(images, "x", data.getvalue())

    in_store(tmp_path, scenario)
    assert not (tmp_path / "evil").exists()
    assert not Path("/evil").exists()


def test_a_cut_import_and_a_cut_removal_are_swept_at_the_next_start(tmp_path: Path) -> None:
    async def first(images: ImageStore) -> None:
        await add(images, "kept")
        (tmp_path / "images/.new-abc/rootfs").mkdir(parents=True)
        (tmp_path / "images" / ("0" * 64) / "rootfs").mkdir(parents=True)

    async def second(images: ImageStore) -> None:
        assert [path.name for path in (tmp_path / "images").iterdir()] == [images.find("kept").id[7:]]

    async def third(images: ImageStore) -> None:
        shutil.rmtree(images.rootfs(images.find("kept")).parent)

    async def fourth(images: ImageStore) -> None:
        with pytest.raises(NotFound):
            images.find("kept")

    in_store(tmp_path, first, second, third, fourth)


def test_an_import_given_up_half_way_leaves_nothing(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield archive(file="x" * 100000)[:50000]
        await asyncio.sleep(1000)

    async def scenario(images: ImageStore) -> None:
        task = asyncio.create_task(images.import_tar(endless(), repo="x", tag="", message="", changes=[]))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list((tmp_path / "images").iterdir()) == []

    in_store(tmp_path, scenario)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "compressed"])
def test_an_upload_that_breaks_off_says_so_and_leaves_nothing(
    tmp_path: Path, compress: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield compress(archive(file="x" * 100000))[:200]
        raise ConnectionResetError("the client has gone")

    async def scenario(images: ImageStore) -> None:
        with pytest.raises(ConnectionResetError, match="the client has gone"):
            await images.import_tar(broken(), repo="x", tag="", message="", changes=[])
        assert list((tmp_path / "images").iterdir()) == []

    in_store(tmp_path, scenario)
    assert not caplog.records


def test_images_are_found_by_every_form_of_their_name(tmp_path: Path) -> None:
    async def scenario(images: ImageStore) -> None:
        image = await add(images, "docker.io/library/box")
        assert image.repo_tags == ["box:latest"]
        for ref in (
            "box",
            "box:latest",
            "docker.io/library/box",
            "library/box",
            image.id,
            image.id[7:],
            image.id[7:12],
        ):
            assert images.find(ref).id == image.id
        for ref, name in (
            ("nosuch", "nosuch:latest"),
            ("box:2", "box:2"),
            ("example.org:5000/x", "example.org:5000/x:latest"),
        ):
            with pytest.raises(NotFound, match=f"No such image: {name}"):
                images.find(ref)

    in_store(tmp_path, scenario)


def test_a_name_moves_to_the_image_tagged_last(tmp_path: Path) -> None:
    async def scenario(images: ImageStore) -> None:
        old, new = await add(images, "box"), await add(images, "box")
        assert images.find("box").id == new.id
        assert images.find(old.id).repo_tags == []
        await images.tag(old.id, "box", "latest")
        await images.tag(old.id, "box", "latest")
        await images.tag(old.id, "other", "")
        assert images.find("box").repo_tags == ["box:latest", "other:latest"]
        with pytest.raises(InvalidParameter, match="repository name \\(library/Box\\) must be lowercase"):
            await images.tag(old.id, "Box", "")
        with pytest.raises(InvalidParameter, match="invalid reference format"):
            await images.tag(old.id, "a//b", "")
        with pytest.raises(InvalidParameter, match="invalid tag format"):
            await images.tag(old.id, "a", "-")

    in_store(tmp_path, scenario)


def test_the_list_is_newest_first_and_can_be_filtered(tmp_path: Path) -> None:
    async def scenario(images: ImageStore) -> None:
        one = await add(images, "one:1", b"", "LABEL a=1")
        two = await add(images, "two:2")
        three = await add(images)

        def shown(**filters: str) -> list[str]:
            found = images.list(Filters({key: frozenset({value}) for key, value in filters.items()}))
            return [image.id for image in found]

        assert shown() == [three.id, two.id, one.id]
        assert shown(label="a=1") == [one.id]
        assert shown(dangling="true") == [three.id]
        assert shown(reference="t*") == [two.id]
        assert shown(before="two:2") == [one.id]
        assert shown(since="one:1") == [three.id, two.id]
        row = view.summary(images.list(Filters())[-1])
        assert (row["RepoTags"], row["Labels"], row["Size"], row["Containers"]) == (["one:1"], {"a": "1"}, 6, -1)
        with pytest.raises(InvalidParameter, match="invalid filter 'bogus'"):
            shown(bogus="1")

    in_store(tmp_path, scenario)


def test_what_before_and_since_mean_is_found_out_once_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(images: ImageStore) -> None:
        _, two, three, four = [await add(images, f"{name}:1") for name in ("one", "two", "three", "four")]
        asked: list[str] = []

        def find(ref: str) -> Image:
            asked.append(ref)
            return ImageStore.find(images, ref)

        def shown(**wanted: list[str]) -> list[str]:
            found = images.list(Filters({key: frozenset(values) for key, values in wanted.items()}))
            return [image.id for image in found]

        monkeypatch.setattr(images, "find", find)
        assert shown(before=["four:1", three.id], since=["one:1"]) == [two.id]
        assert sorted(asked) == sorted(["four:1", three.id, "one:1"])
        assert shown(since=["one:1", two.id]) == [four.id, three.id]
        with pytest.raises(NotFound, match="No such image: nosuch:latest"):
            shown(before=["nosuch"])
        with pytest.raises(InvalidParameter, match="invalid filter 'before': more than 128 values"):
            shown(before=[f"{number}:1" for number in range(129)])
        with pytest.raises(InvalidParameter, match="invalid filter: the expressions are too large"):
            shown(reference=["*a" * 100])

    in_store(tmp_path, scenario)


def test_removing_names_and_images(tmp_path: Path) -> None:
    async def scenario(images: ImageStore) -> None:
        image = await add(images, "a")
        await images.tag("a", "b", "")
        with pytest.raises(Conflict, match=r"\(must be forced\) - image is referenced in multiple repositories"):
            await images.remove(image.id, force=False, in_use=nobody)
        assert await images.remove("a", force=False, in_use=lambda _: ["c" * 64]) == [Removal(untagged="a:latest")]
        short, container = image.id[7:19], "c" * 12
        with pytest.raises(Conflict) as conflict:
            await images.remove("b", force=False, in_use=lambda _: ["c" * 64])
        assert str(conflict.value) == (
            'conflict: unable to remove repository reference "b" (must force) - '
            f"container {container} is using its referenced image {short}"
        )
        assert await images.remove("b", force=False, in_use=nobody) == [
            Removal(untagged="b:latest"),
            Removal(deleted=image.id),
            Removal(deleted=image.layer),
        ]
        assert list((tmp_path / "images").iterdir()) == []
        with pytest.raises(NotFound):
            await images.remove("b", force=True, in_use=nobody)

    in_store(tmp_path, scenario)


def test_a_forced_removal_keeps_the_files_of_an_image_in_use(tmp_path: Path) -> None:
    async def scenario(images: ImageStore) -> None:
        image = await add(images, "a")
        assert await images.remove(image.id, force=True, in_use=lambda _: ["c"]) == [Removal(untagged="a:latest")]
        assert (images.rootfs(image) / "file").exists()
        removed = await images.remove(image.id, force=False, in_use=nobody)
        assert removed == [Removal(deleted=image.id), Removal(deleted=image.layer)]

    in_store(tmp_path, scenario)
