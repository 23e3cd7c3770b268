"""A root file system from a tar archive, plain or compressed, as it streams in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from netd.core.errors import InvalidParameter
from netd.core.tasks import Tasks

_MAGIC = {
    b"\x1f\x8b": ("gzip", "-dc"),
    b"BZh": ("bzip2", "-dc"),
    b"\xfd7zXZ\0": ("xz", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
}
_SNIFF = 6  # bytes, the longest of them
_CHUNK = 256 * 1024

Chunks = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Layer:
    """What was unpacked: the digest of the uncompressed archive and the bytes its files take."""

    digest: str
    size: int


async def unpack(chunks: Chunks, directory: Path) -> Layer:
    """Unpack into the empty `directory`; raises `InvalidParameter` for what is not an archive.

    GNU tar does it, which lets no member name or symbolic link lead out of the directory.
    """
    digest = hashlib.sha256()
    words = ["--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"]
    command = ["tar", "--extract", "--file", "-", "--directory", str(directory), *words]
    async with _running(*command, output=asyncio.subprocess.DEVNULL) as tar:
        async with aclosing(_uncompressed(chunks)) as plain:
            async for chunk in plain:
                digest.update(chunk)
                if not await tar.write(chunk):
                    break
        await tar.finish()
    size = await asyncio.to_thread(_settle, directory)
    return Layer(f"sha256:{digest.hexdigest()}", size)


async def _uncompressed(chunks: Chunks) -> AsyncGenerator[bytes]:
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _SNIFF:
            break
    command = next((command for magic, command in _MAGIC.items() if head.startswith(magic)), None)
    whole = _from(head, chunks)
    async with aclosing(_through(command, whole) if command else whole) as plain:
        async for chunk in plain:
            yield chunk


async def _from(head: bytes, chunks: Chunks) -> AsyncGenerator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


async def _through(command: tuple[str, ...], chunks: Chunks) -> AsyncGenerator[bytes]:
    """`chunks` as the program makes them."""
    tasks = Tasks()
    async with _running(*command) as program:
        try:
            feeder = tasks.start(program.feed(chunks), f"the input of {command[0]}")
            while chunk := await program.read():
                yield chunk
            if (error := await feeder) is not None:
                raise error
            await program.finish()
        finally:
            await tasks.close()


class _Program:
    """A program that archives pass through. What it complains of is in a file, so that nobody needs to listen."""

    def __init__(self, process: asyncio.subprocess.Process, complaints: BinaryIO) -> None:
        self._process = process
        self._complaints = complaints

    async def write(self, data: bytes) -> bool:
        """False if it has stopped reading: its exit status says why."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(data)
            await pipe.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    async def feed(self, chunks: Chunks) -> Exception | None:
        """Write them all; what is wrong with them is returned to whoever reads the output."""
        try:
            async for chunk in chunks:
                if not await self.write(chunk):
                    break
        except Exception as error:
            return error
        finally:
            self._end_input()
        return None

    async def read(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(_CHUNK)

    async def finish(self) -> None:
        """There is no more to come; raises `InvalidParameter` if the program did not like what came."""
        self._end_input()
        if await self._process.wait():
            self._complaints.seek(0)
            said = self._complaints.read(_CHUNK).decode(errors="replace").strip().splitlines()
            raise InvalidParameter(f"invalid archive: {said[0] if said else 'it cannot be unpacked'}")

    async def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _end_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


@asynccontextmanager
async def _running(*command: str, output: int = asyncio.subprocess.PIPE) -> AsyncIterator[_Program]:
    """Ended, one way or the other, at the end of the block."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=complaints,
            )
        except FileNotFoundError as error:
            raise InvalidParameter(f"the archive needs {command[0]}, which is not installed") from error
        program = _Program(process, complaints)
        try:
            yield program
        finally:
            await program.kill()


def _settle(directory: Path) -> int:
    """Bytes in regular files, hard links counted once. Everything is on disk when it returns."""
    seen: set[int] = set()
    size = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += status.st_size
    os.sync()
    return size
