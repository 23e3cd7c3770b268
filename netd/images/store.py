"""Images: one root file system each, imported from a tar archive, with the configuration for its containers.

<data-root>/images/<hex of id>/rootfs    read-only below the containers' writable layers
store: images/<hex of id>                the record; a directory without one is left over from a crash

What changes an image reads it again under the lock. One that is being removed is not found any more, one that is
being imported not yet; one that a container is being made of is held, and not removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kvstore.contract import Store, StoreError
from netd.core.errors import Conflict, InvalidParameter, NotFound
from netd.core.filters import Filters
from netd.core.records import Records
from netd.core.times import timestamp, unix_seconds
from netd.images import instructions, refs
from netd.images.unpack import Layer, unpack
from netd.model.docker import Docker
from netd.model.images import Image, ImageConfig

log = logging.getLogger(__name__)

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

InUse = Callable[[str], Sequence[str]]  # the ids of the containers made from the image with this id


class Removal(Docker, omit_defaults=True, frozen=True):
    """One step of a removal: a name taken away, or an image or its layer deleted."""

    untagged: str = ""
    deleted: str = ""


Removals = list[Removal]


class ImageStore:
    """All images of the daemon."""

    def __init__(self, data_root: Path, store: Store) -> None:
        self._root = data_root / "images"
        self._records = Records(store, "images", Image)
        self._lock = asyncio.Lock()
        self._held: Counter[str] = Counter()  # by key: containers that are being made of an image
        self._hidden: set[str] = set()  # keys of those that are half added or half removed

    @property
    def images(self) -> Mapping[str, Image]:
        """By the hexadecimal digits of their id."""
        return {key: image for key, image in self._records.items.items() if key not in self._hidden}

    async def load(self) -> None:
        """Read the records; remove what an import or removal left when it was cut short."""
        await self._records.load()
        present = await asyncio.to_thread(self._sweep, {*self.images, *self._records.unreadable})
        for key in set(self.images) - present:
            log.warning("the root file system of image %s has gone: forgetting the image", key[:12])
            await self._records.delete(key)
        await self._drop_double_names()

    # ---- finding ----

    def find(self, ref: str) -> Image:
        """By id, name (`latest` is the default tag) or unique beginning of an id; raises `NotFound`."""
        images, digits = self.images, refs.id_prefix(ref)
        if digits is not None and digits in images:
            return images[digits]
        try:
            name = refs.normalise(ref)
        except InvalidParameter:
            name = ref
        if named := self._named(name):
            return named[0]
        found = [image for key, image in images.items() if digits and key.startswith(digits)]
        if len(found) > 1:
            raise InvalidParameter(f"image ID prefix {ref} is ambiguous: {len(found)} images begin with it")
        if not found:
            raise NotFound(f"No such image: {name}")
        return found[0]

    @contextmanager
    def hold(self, ref: str) -> Iterator[Image]:
        """`find`, and keep the image from being removed: until the container made of it is among those in use."""
        image = self.find(ref)
        key = _key(image)
        self._held[key] += 1
        try:
            yield image
        finally:
            self._held[key] -= 1
            self._held += Counter()  # drops those at zero

    def rootfs(self, image: Image) -> Path:
        """Its root file system, to be read only."""
        return self._root / _key(image) / "rootfs"

    def list(self, filters: Filters) -> Sequence[Image]:
        """Those that pass, newest first. Filters: before, dangling, label, reference, since, until."""
        filters.check("before", "dangling", "label", "reference", "since", "until")
        passing = filter(self._passing(filters), self.images.values())
        return sorted(passing, key=lambda image: image.created, reverse=True)

    # ---- changing ----

    async def import_tar(
        self, chunks: AsyncIterator[bytes], *, repo: str, tag: str, message: str, changes: Sequence[str]
    ) -> Image:
        """An image from a tar archive (plain, gzip, bzip2, xz or zstd) with the configuration that `changes`
        make; named `repo:tag` unless `repo` is empty. Raises `InvalidParameter`."""
        name = refs.normalise(repo, tag) if repo else ""
        config = await asyncio.to_thread(instructions.apply, ImageConfig(), changes)  # ranges of ports may be long
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        try:
            (fresh / "rootfs").mkdir()
            (fresh / "rootfs").chmod(0o755)
            layer = await unpack(chunks, fresh / "rootfs")
            image = _image(config, layer, message or "Imported from -", [name] if name else [])
            async with self._lock:
                return await self._add(image, fresh)
        except BaseException:
            await asyncio.to_thread(_remove_tree, fresh)
            raise

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        """Give it one more name, taking the name from an image that has it."""
        name = refs.normalise(repo, tag)
        async with self._lock:
            image = self.find(ref)
            if name not in image.repo_tags:
                await self._records.put(_key(image), replace(image, repo_tags=[*image.repo_tags, name]))
            try:
                await self._take(name, image.id)
            except BaseException:
                with suppress(StoreError):
                    await self._records.put(_key(image), image)
                raise

    async def remove(self, ref: str, *, force: bool, in_use: InUse) -> Removals:
        """Take a name away, and the image itself with its last name. A forced removal of an image in use takes
        its names only. Raises `Conflict`; the image is whole then, as after any other error."""
        async with self._lock:
            image = self.find(ref)
            name = self._name_of(image, ref)
            users = self._users(image, in_use)
            if not force:
                _check_removal(image, ref, name, users)
            gone = [name] if name else image.repo_tags
            if users or len(gone) < len(image.repo_tags):
                return await self._untag(image, gone)
            removals = await self._delete(image)
        await self._discard(image)
        return removals

    async def prune(self, filters: Filters, in_use: InUse) -> tuple[Removals, int]:
        """Remove the images without a name, or with `dangling=false` all, that no container was made from; the
        bytes that this freed. Filters: dangling, label, label!, until. What cannot be removed is left, and told in
        the log."""
        filters.check("dangling", "label", "label!", "until")
        only_dangling, older = filters.truthy("dangling", default=True), filters.until()
        removals: Removals = []
        freed = 0
        for key in list(self.images):
            async with self._lock:
                image = self.images.get(key)
                if image is None or (only_dangling and image.repo_tags) or self._users(image, in_use):
                    continue
                if not (filters.labels(image.config.labels or {}) and older(image.created)):
                    continue
                try:
                    removals += await self._delete(image)
                except StoreError as error:
                    log.warning("image %s could not be pruned: %s", key[:12], error)
                    continue
            await self._discard(image)
            freed += image.size
        return removals, freed

    # ---- inside, under the lock ----

    async def _add(self, image: Image, fresh: Path) -> Image:
        """Store an image with its files in `fresh`, and its name taken from who has it; or nothing of it."""
        key = _key(image)
        if (known := self.images.get(key)) is not None:  # one and the same, imported twice at once
            await asyncio.to_thread(_remove_tree, fresh)
            return known
        await asyncio.to_thread(fresh.rename, self._root / key)
        self._hidden.add(key)
        try:
            await self._records.add(key, image)
            for name in image.repo_tags:
                await self._take(name, image.id)
        except BaseException:
            with suppress(StoreError):
                await self._records.delete(key)
                await self._discard(image)
            raise
        finally:
            self._hidden.discard(key)
        return image

    async def _take(self, name: str, holder: str) -> None:
        """Take a name from all images but the one with the id `holder`."""
        for image in self._named(name):
            if image.id != holder:
                await self._untag(image, [name])

    async def _untag(self, image: Image, names: Sequence[str]) -> Removals:
        left = [name for name in image.repo_tags if name not in names]
        await self._records.put(_key(image), replace(image, repo_tags=left))
        return [Removal(untagged=name) for name in names]

    async def _delete(self, image: Image) -> Removals:
        """Forget an image that nobody uses; its files are to be discarded."""
        key = _key(image)
        self._hidden.add(key)
        try:
            await self._records.delete(key)
        finally:
            self._hidden.discard(key)
        names = [Removal(untagged=name) for name in image.repo_tags]
        return [*names, Removal(deleted=image.id), Removal(deleted=image.layer)]

    def _users(self, image: Image, in_use: InUse) -> Sequence[str]:
        """The containers made of an image; one that is being made has no id yet."""
        return in_use(image.id) or [""] * self._held[_key(image)]

    # ---- inside ----

    def _named(self, name: str) -> Sequence[Image]:
        """The images with this name, newest first: more than one only if moving the name failed half-way."""
        named = (image for image in self.images.values() if name in image.repo_tags)
        return sorted(named, key=lambda image: image.created, reverse=True)

    def _name_of(self, image: Image, ref: str) -> str:
        """The name by which `ref` means the image; empty if it is an id."""
        try:
            name = refs.normalise(ref)
        except InvalidParameter:
            return ""
        return name if name in image.repo_tags and refs.id_prefix(ref) != _key(image) else ""

    async def _drop_double_names(self) -> None:
        """A name being moved when the daemon was killed stays with the newer image."""
        for name in {name for image in self.images.values() for name in image.repo_tags}:
            await self._take(name, self._named(name)[0].id)

    async def _discard(self, image: Image) -> None:
        """Remove the files of an image without a record; the next start of the daemon does what fails."""
        await asyncio.to_thread(_remove_tree, self._root / _key(image))

    def _sweep(self, known: set[str]) -> set[str]:
        """Remove directories that are no image's; those that are."""
        self._root.mkdir(parents=True, exist_ok=True)
        directories = {path.name for path in self._root.iterdir()}
        for name in directories - known:
            _remove_tree(self._root / name)
        return directories & known

    def _passing(self, filters: Filters) -> Callable[[Image], bool]:
        """What tells whether an image passes; what `before` and `since` mean is found out here, once."""
        before = [unix_seconds(self.find(ref).created) for ref in filters.references("before")]
        since = [unix_seconds(self.find(ref).created) for ref in filters.references("since")]
        first, last = min(before, default=inf), max(since, default=-inf)
        older = filters.until()
        return lambda image: (
            last < unix_seconds(image.created) < first and older(image.created) and _passes(image, filters)
        )


def _passes(image: Image, filters: Filters) -> bool:
    return (
        filters.labels(image.config.labels or {})
        and (not filters.get("dangling") or filters.truthy("dangling") == (not image.repo_tags))
        and filters.glob("reference", [form for name in image.repo_tags for form in refs.forms(name)])
    )


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the files of an image are removed at the next start of the daemon, not now: %s", error)


def _image(config: ImageConfig, layer: Layer, comment: str, names: list[str]) -> Image:
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
        repo_tags=names,
        config=config,
        size=layer.size,
        comment=comment,
        layer=layer.digest,
    )


def _key(image: Image) -> str:
    return image.id.removeprefix("sha256:")


def _check_removal(image: Image, ref: str, name: str, users: Sequence[str]) -> None:
    """`Conflict` unless the name, or without one the image, may go without force."""
    short, last = _key(image)[:12], len(image.repo_tags) <= 1
    user = f"container {users[0][:12]}" if users and users[0] else "a container that is being created"
    if name and last and users:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - '
            f"{user} is using its referenced image {short}"
        )
    if not name and users:
        reason = f"image is being used by stopped {user}" if users[0] else f"image is being used by {user}"
        raise Conflict(f"conflict: unable to delete {short} (must be forced) - {reason}")
    if not name and not last:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
