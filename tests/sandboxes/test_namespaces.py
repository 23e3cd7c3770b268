"""Network namespaces of sandboxes, as the kernel has them: pinned, let go of, swept, entered for sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import netns
from drivers.spec import DriverError
from netd.sandboxes.namespaces import OWN, Namespaces, Sockets

pytestmark = pytest.mark.root


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where namespaces are pinned; it is not there yet. What a test pins below `tmp_path` is removed after it."""
    yield tmp_path / "netns"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            netns.remove(str(path))


@pytest.fixture
def namespaces(directory: Path) -> Namespaces:
    return Namespaces(directory)


def pinned(namespaces: Namespaces, sandbox_id: str = "0123456789abcdef") -> str:
    path = namespaces.path(sandbox_id)
    asyncio.run(namespaces.pin(path))
    return path


def mounted(path: str | Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


# ---- pinned ---------------------------------------------------------------------------------------------


def test_a_namespace_is_pinned_at_the_beginning_of_its_sandboxes_id(namespaces: Namespaces, directory: Path) -> None:
    path = pinned(namespaces)
    assert path == str(directory / "0123456789ab")
    assert namespaces.inode(path) not in (None, namespaces.inode(OWN))


def test_pinning_twice_keeps_the_first(namespaces: Namespaces) -> None:
    first = namespaces.inode(pinned(namespaces))
    assert namespaces.inode(pinned(namespaces)) == first
    assert namespaces.inode(pinned(namespaces, "another")) != first


def test_what_is_no_network_namespace_has_no_number(namespaces: Namespaces, directory: Path) -> None:
    directory.mkdir()
    (directory / "file").touch()
    for path in (directory / "file", directory / "absent", directory, "a\0b"):
        assert namespaces.inode(str(path)) is None, path


def test_a_namespace_that_is_let_go_of_leaves_no_trace(namespaces: Namespaces) -> None:
    path = pinned(namespaces)
    asyncio.run(namespaces.unpin(path))
    assert namespaces.inode(path) is None
    assert not os.path.exists(path)
    assert not mounted(path)
    asyncio.run(namespaces.unpin(path))


@pytest.mark.parametrize("where", ["elsewhere", "netns/deeper"])
def test_a_namespace_that_is_somebody_elses_is_not_let_go_of(
    namespaces: Namespaces, tmp_path: Path, where: str, directory: Path
) -> None:
    foreign = str(tmp_path / where / "build")
    netns.create(foreign)
    asyncio.run(namespaces.unpin(foreign))
    assert namespaces.inode(foreign) is not None


def test_an_empty_path_is_nothing_to_let_go_of(namespaces: Namespaces) -> None:
    asyncio.run(namespaces.unpin(""))


# ---- swept ----------------------------------------------------------------------------------------------


def test_a_sweep_removes_just_those_that_nobody_vouches_for(namespaces: Namespaces, directory: Path) -> None:
    known, unknown = pinned(namespaces, "known"), pinned(namespaces, "unknown")
    (directory / "unmounted").touch()  # a crash before the mount
    inode = namespaces.inode(known)
    asyncio.run(namespaces.sweep([known, "/somewhere/else"]))
    assert [str(path) for path in directory.iterdir()] == [known]
    assert namespaces.inode(known) == inode
    assert not mounted(unknown)


def test_a_sweep_before_anything_was_pinned_does_nothing(namespaces: Namespaces, directory: Path) -> None:
    asyncio.run(namespaces.sweep([]))
    assert not directory.exists()


# ---- sockets --------------------------------------------------------------------------------------------


def is_open(sockets: Sockets) -> bool:
    """Whether any of them is."""
    try:
        os.fstat(sockets.namespace)
    except OSError:
        return sockets.udp.fileno() != -1 or sockets.tcp.fileno() != -1
    return True


def reached(sockets: Sockets) -> bytes:
    """What comes of a datagram that is sent to the resolver from the namespace that this thread is in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"who", sockets.udp.getsockname())
    return sockets.udp.recv(512)


def test_the_resolvers_sockets_are_inside_the_namespace(namespaces: Namespaces) -> None:
    path = pinned(namespaces)

    def inside(sockets: Sockets) -> bytes:
        with netns.entered(path):
            with socket.create_connection(sockets.tcp.getsockname(), timeout=2):
                pass
            return reached(sockets)

    async def scenario() -> None:
        async with namespaces.sockets(path) as sockets:
            for each in (sockets.udp, sockets.tcp):
                assert each.getsockname()[0] == "127.0.0.11"
            assert os.fstat(sockets.namespace).st_ino == namespaces.inode(path)
            assert await asyncio.to_thread(inside, sockets) == b"who"
            with pytest.raises(BlockingIOError):
                await asyncio.to_thread(reached, sockets)

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_the_sockets_are_closed_afterwards(namespaces: Namespaces, fails: bool) -> None:
    path = pinned(namespaces)
    seen: list[Sockets] = []

    async def scenario() -> None:
        async with namespaces.sockets(path) as sockets:
            seen.append(sockets)
            assert is_open(sockets)
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            asyncio.run(scenario())
    else:
        asyncio.run(scenario())
    assert not is_open(seen[0])


async def enter(namespaces: Namespaces, path: str) -> None:
    async with namespaces.sockets(path):
        raise AssertionError("there is a namespace after all")


def test_a_namespace_that_is_not_there_is_told_with_its_path(namespaces: Namespaces) -> None:
    path = namespaces.path("absent")
    with pytest.raises(DriverError, match=f"network namespace {path} does not exist"):
        asyncio.run(enter(namespaces, path))


def test_a_namespace_that_goes_meanwhile_leaves_no_socket_open(
    namespaces: Namespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = pinned(namespaces), list[socket.socket]()
    real = netns.resolver_sockets

    def then_it_goes(where: str) -> tuple[socket.socket, socket.socket]:
        pair = real(where)
        opened.extend(pair)
        netns.remove(where)
        return pair

    monkeypatch.setattr(netns, "resolver_sockets", then_it_goes)
    with pytest.raises(DriverError, match=f"network namespace {path} does not exist"):
        asyncio.run(enter(namespaces, path))
    assert [each.fileno() for each in opened] == [-1, -1]
