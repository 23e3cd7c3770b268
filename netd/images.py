"""Images: one root file system each, imported from a tar archive, with the configuration for its containers.

<data-root>/images/<hex of id>/rootfs    read-only below the containers' writable layers
store: images/<hex of id>                the record; a directory without one is left over from a crash
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from kvstore.contract import Store
from netd import image_changes, image_refs, image_tar
from netd.errors import Conflict, InvalidParameter, NotFound
from netd.filters import Filters
from netd.model import ContainerConfig, Image, ImageConfig
from netd.records import Records
from netd.times import timestamp, unix_seconds

log = logging.getLogger(__name__)

# the class has a method called `list`
Rows = list[dict[str, Any]]
Words = list[str]
InUse = Callable[[str], Words]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class ImageStore:
    """All images of the daemon."""

    def __init__(self, data_root: Path, store: Store) -> None:
        self._root = data_root / "images"
        self._records = Records(store, "images", Image)
        self._lock = asyncio.Lock()

    @property
    def images(self) -> Mapping[str, Image]:
        """By the hexadecimal digits of their id."""
        return self._records.items

    async def load(self) -> None:
        """Read the records; remove what an import or removal left when it was cut short."""
        await self._records.load()
        present = await asyncio.to_thread(self._sweep, set(self.images))
        for key in set(self.images) - present:
            log.warning("the root file system of image %s has gone: forgetting the image", key[:12])
            await self._records.delete(key)
        await self._drop_double_tags()

    async def import_tar(
        self, chunks: AsyncIterator[bytes], *, repo: str, tag: str, message: str, changes: Words
    ) -> Image:
        """An image from a tar archive (plain, gzip, bzip2, xz or zstd) with the configuration that `changes`
        make; named `repo:tag` unless `repo` is empty. Raises `InvalidParameter`."""
        name = image_refs.normalise(repo, tag) if repo else ""
        config = image_changes.apply(ImageConfig(), changes)
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        try:
            (fresh / "rootfs").mkdir()
            (fresh / "rootfs").chmod(0o755)
            layer = await image_tar.unpack(chunks, fresh / "rootfs")
            image = _image(config, layer, message or "Imported from -")
            await asyncio.to_thread(fresh.rename, self._root / _key(image))
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
            raise
        async with self._lock:
            await self._records.save(_key(image), image)
            return await self._tag(image, name) if name else image

    def find(self, ref: str) -> Image:
        """By id, name (`latest` is the default tag) or unique beginning of an id; raises `NotFound`."""
        digits = image_refs.id_prefix(ref)
        if digits is not None and digits in self.images:
            return self.images[digits]
        try:
            name = image_refs.normalise(ref)
        except InvalidParameter:
            name = ref
        tagged = self._tagged(name)
        if tagged is not None:
            return tagged
        found = [image for key, image in self.images.items() if digits and key.startswith(digits)]
        if len(found) > 1:
            raise InvalidParameter(f"image ID prefix {ref} is ambiguous: {len(found)} images begin with it")
        if not found:
            raise NotFound(f"No such image: {name}")
        return found[0]

    def rootfs(self, image: Image) -> Path:
        """Its root file system, to be read only."""
        return self._root / _key(image) / "rootfs"

    def inspect(self, ref: str) -> dict[str, Any]:
        """GET /images/{name}/json."""
        image = self.find(ref)
        return {
            "Id": image.id,
            "RepoTags": image.repo_tags,
            "RepoDigests": [],
            "Parent": "",
            "Comment": image.comment,
            "Created": image.created,
            "DockerVersion": "",
            "Author": "",
            "Config": msgspec.to_builtins(ContainerConfig(**asdict(image.config))),
            "Architecture": ARCHITECTURE,
            "Os": "linux",
            "Size": image.size,
            "GraphDriver": {"Data": {"UpperDir": str(self.rootfs(image))}, "Name": "overlay2"},
            "RootFS": {"Type": "layers", "Layers": [image.layer]},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }

    def list(self, filters: Filters) -> Rows:
        """GET /images/json, newest first. Filters: before, dangling, label, reference, since, until."""
        filters.check("before", "dangling", "label", "reference", "since", "until")
        images = [image for image in self.images.values() if self._matches(image, filters)]
        return [_summary(image) for image in sorted(images, key=lambda image: image.created, reverse=True)]

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        """Give it one more name, taking the name from an image that has it."""
        image, name = self.find(ref), image_refs.normalise(repo, tag)
        async with self._lock:
            await self._tag(self.images[_key(image)], name)

    async def remove(self, ref: str, *, force: bool, in_use: InUse) -> Rows:
        """Take a name away, and the image itself with its last name; `in_use` tells the ids of the containers
        made from an image. A forced removal of an image in use takes its names only. Raises `Conflict`."""
        image = self.find(ref)
        name = self._name_of(image, ref)
        users = in_use(image.id)
        if not force:
            _check_removal(image, ref, name, users)
        gone = [name] if name else image.repo_tags
        left = [tag for tag in image.repo_tags if tag not in gone]
        answer: Rows = [{"Untagged": tag} for tag in gone]
        async with self._lock:
            if left or users:
                await self._records.put(_key(image), replace(image, repo_tags=left))
                return answer
            await self._records.delete(_key(image))
        await asyncio.to_thread(shutil.rmtree, self._root / _key(image), ignore_errors=True)
        return [*answer, {"Deleted": image.id}, {"Deleted": image.layer}]

    # ---- inside ----

    def _tagged(self, name: str) -> Image | None:
        return next((image for image in self.images.values() if name in image.repo_tags), None)

    def _name_of(self, image: Image, ref: str) -> str:
        """The name by which `ref` means the image; empty if it is an id."""
        try:
            name = image_refs.normalise(ref)
        except InvalidParameter:
            return ""
        return name if name in image.repo_tags and image_refs.id_prefix(ref) != _key(image) else ""

    async def _tag(self, image: Image, name: str) -> Image:
        earlier = self._tagged(name)
        if earlier is not None and earlier.id == image.id:
            return earlier
        tagged = replace(image, repo_tags=[*image.repo_tags, name])
        await self._records.put(_key(image), tagged)
        if earlier is not None:
            await self._untag(earlier, name)
        return tagged

    async def _untag(self, image: Image, name: str) -> None:
        left = [tag for tag in image.repo_tags if tag != name]
        await self._records.put(_key(image), replace(image, repo_tags=left))

    async def _drop_double_tags(self) -> None:
        """A name being moved when the daemon was killed stays with the newer image."""
        seen: set[str] = set()
        for image in sorted(self.images.values(), key=lambda image: image.created, reverse=True):
            for name in seen & set(image.repo_tags):
                await self._untag(self.images[_key(image)], name)
            seen |= set(image.repo_tags)

    def _sweep(self, known: set[str]) -> set[str]:
        """Remove directories that are no image's; those that are."""
        self._root.mkdir(parents=True, exist_ok=True)
        directories = {path.name for path in self._root.iterdir()}
        for name in directories - known:
            shutil.rmtree(self._root / name, ignore_errors=True)
        return directories & known

    def _matches(self, image: Image, filters: Filters) -> bool:
        created = unix_seconds(image.created)
        return (
            filters.labels(image.config.labels or {})
            and (not filters.get("dangling") or filters.truthy("dangling") == (not image.repo_tags))
            and filters.glob("reference", [form for tag in image.repo_tags for form in image_refs.forms(tag)])
            and all(created < unix_seconds(self.find(ref).created) for ref in filters.get("before"))
            and all(created > unix_seconds(self.find(ref).created) for ref in filters.get("since"))
            and filters.until(image.created)
        )


def _image(config: ImageConfig, layer: image_tar.Layer, comment: str) -> Image:
    """The id is, as everywhere, the digest of the configuration, which contains the layer's digest."""
    created = timestamp()
    document = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": created,
        "comment": comment,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    digest = hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()
    return Image(
        id=f"sha256:{digest}",
        created=created,
        repo_tags=[],
        config=config,
        size=layer.size,
        comment=comment,
        layer=layer.digest,
    )


def _key(image: Image) -> str:
    return image.id.removeprefix("sha256:")


def _summary(image: Image) -> dict[str, Any]:
    return {
        "Containers": -1,
        "Created": int(unix_seconds(image.created)),
        "Id": image.id,
        "Labels": image.config.labels,
        "ParentId": "",
        "RepoDigests": [],
        "RepoTags": image.repo_tags,
        "SharedSize": -1,
        "Size": image.size,
    }


def _check_removal(image: Image, ref: str, name: str, users: list[str]) -> None:
    short = _key(image)[:12]
    last = len(image.repo_tags) <= 1
    if name and last and users:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - '
            f"container {users[0][:12]} is using its referenced image {short}"
        )
    if not name and users:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - "
            f"image is being used by stopped container {users[0][:12]}"
        )
    if not name and not last:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
