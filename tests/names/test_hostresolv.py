"""The host's resolv.conf, and its follower: one unreadable moment, or what no one would expect in it, ends nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netd.core import textfiles
from netd.names.hostresolv import HostResolvConf
from tests.fakes.host import Host, host


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    return path


@pytest.fixture
def h(file: Path) -> Iterator[Host]:
    """A host with one sandbox that asks the host's servers, which are followed."""
    with host(host_file=HostResolvConf(file)) as made:
        made.up("web", made.network("red"))
        made.tasks.keep_running(made.sandboxes.follow_host_resolvers, "following")
        yield made


def servers(h: Host, after: float = 3) -> list[str]:
    """Where the sandbox's questions go, some seconds later."""
    end = h.loop.time() + after
    h.loop.call_at(end, lambda: None)
    h.until(lambda: h.loop.time() >= end)
    return [str(upstream.address) for upstream in h.resolver.sandboxes["s-web"].upstreams]


def test_a_changed_file_is_followed(h: Host, file: Path) -> None:
    assert servers(h) == ["192.0.2.1"]
    file.write_text("nameserver 192.0.2.2\n")
    assert servers(h) == ["192.0.2.2"]
    file.unlink()
    assert servers(h) == []
    file.write_text("nameserver 192.0.2.3\n")
    assert servers(h) == ["192.0.2.3"]


def unreadable(path: Path, how: str) -> None:
    path.unlink()
    match how:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "huge":
            path.write_bytes(b"nameserver 192.0.2.9\n" + bytes(textfiles.LIMIT))


@pytest.mark.parametrize("how", ["directory", "pipe", "loop", "huge"])
def test_while_it_cannot_be_read_the_servers_stay_and_then_it_is_followed_again(
    h: Host, file: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable(file, how)
    with caplog.at_level(logging.WARNING):
        assert servers(h, 10) == ["192.0.2.1"]
    assert len([line for line in caplog.messages if "cannot be read" in line]) == 1
    if how == "directory":
        file.rmdir()
    else:
        file.unlink()
    file.write_text("nameserver 192.0.2.2\n")
    assert servers(h) == ["192.0.2.2"]


def test_bytes_that_are_no_text_keep_nothing_from_being_read(h: Host, file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00search \xe9\nnameserver 192.0.2.2\n\x80\x81")
    assert servers(h) == ["192.0.2.2"]


def test_a_follower_that_fails_goes_on(h: Host, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, failures = h.names.host.look, iter(range(3))

    async def failing() -> None:
        for _ in failures:
            raise RuntimeError("what nobody thought of")
        await look()

    monkeypatch.setattr(h.names.host, "look", failing)
    file.write_text("nameserver 192.0.2.2\n")
    assert servers(h, 12) == ["192.0.2.2"]


def test_a_daemon_starts_with_a_file_that_cannot_be_read(file: Path) -> None:
    unreadable(file, "directory")
    assert HostResolvConf(file).text == ""
