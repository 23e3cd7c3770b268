"""A root file system from a tar archive, plain or compressed, as it streams in."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netd.errors import InvalidParameter

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
    tar = await asyncio.create_subprocess_exec(
        *("tar", "--extract", "--file", "-", "--directory", str(directory)),
        *("--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert tar.stdin is not None and tar.stderr is not None
        said = asyncio.create_task(tar.stderr.read())
        async for chunk in _uncompressed(chunks):
            digest.update(chunk)
            if not await _write(tar.stdin, chunk):
                break
        tar.stdin.close()
        await _finish(tar, await said)
    finally:
        await _kill(tar)
    size = await asyncio.to_thread(_settle, directory)
    return Layer(f"sha256:{digest.hexdigest()}", size)


async def _uncompressed(chunks: Chunks) -> Chunks:
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _SNIFF:
            break
    command = next((command for magic, command in _MAGIC.items() if head.startswith(magic)), None)
    whole = _from(head, chunks)
    async for chunk in _through(command, whole) if command else whole:
        yield chunk


async def _from(head: bytes, chunks: Chunks) -> Chunks:
    yield head
    async for chunk in chunks:
        yield chunk


async def _through(command: tuple[str, ...], chunks: Chunks) -> Chunks:
    """`chunks` as the program makes them."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise InvalidParameter(f"the archive is compressed with {command[0]}, which is not installed") from error
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    feeder = asyncio.create_task(_feed(chunks, process.stdin))
    said = asyncio.create_task(process.stderr.read())
    try:
        while chunk := await process.stdout.read(_CHUNK):
            yield chunk
        await feeder
        await _finish(process, await said)
    finally:
        feeder.cancel()
        said.cancel()
        await _kill(process)
        await asyncio.gather(feeder, said, return_exceptions=True)


async def _feed(chunks: Chunks, pipe: asyncio.StreamWriter) -> None:
    async for chunk in chunks:
        if not await _write(pipe, chunk):
            break
    pipe.close()


async def _write(pipe: asyncio.StreamWriter, data: bytes) -> bool:
    """False if the program has stopped reading: its exit status says why."""
    try:
        pipe.write(data)
        await pipe.drain()
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


async def _finish(process: asyncio.subprocess.Process, said: bytes) -> None:
    if await process.wait():
        reason = said.decode(errors="replace").strip().splitlines()
        raise InvalidParameter(f"invalid archive: {reason[0] if reason else 'it cannot be unpacked'}")


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


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
