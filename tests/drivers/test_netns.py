"""Namespaces, and the resolver's way into them."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from drivers import netns
from drivers.spec import DnsPorts, DriverError
from tests.drivers.world import World, opened, sh

pytestmark = pytest.mark.root


def test_a_namespace_is_made_with_lo_up_and_removed_without_trace(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "ns")
    netns.create(path)
    with netns.entered(path):
        assert "LOOPBACK,UP" in sh("ip link show lo")
        assert sh("ip -o link").count("\n") == 1
    netns.remove(path)
    assert not os.path.exists(path)
    assert path not in Path("/proc/self/mountinfo").read_text()


def test_making_or_removing_one_twice_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "ns")
    netns.create(path)
    inode = os.stat(path).st_ino
    netns.create(path)
    assert os.stat(path).st_ino == inode
    netns.remove(path)
    netns.remove(path)


def test_a_file_left_by_a_crash_before_the_mount_is_no_namespace(tmp_path: Path) -> None:
    path = tmp_path / "ns"
    path.touch()
    assert not netns.exists(str(path))
    netns.create(str(path))
    assert netns.exists(str(path))
    netns.remove(str(path))


def test_a_visitor_always_comes_home(tmp_path: Path) -> None:
    path = str(tmp_path / "ns")
    netns.create(path)
    home = os.stat("/proc/thread-self/ns/net").st_ino
    with pytest.raises(ZeroDivisionError), netns.entered(path):
        assert os.stat("/proc/thread-self/ns/net").st_ino == os.stat(path).st_ino
        raise ZeroDivisionError
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    netns.remove(path)


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_entering_what_is_no_namespace_says_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / "ns"
    if what == "a file":
        path.touch()
    with pytest.raises(DriverError, match="network namespace"), netns.entered(str(path)):
        pass


# ---- the resolver ---------------------------------------------------------------------------------------


def serve(udp: socket.socket, tcp: socket.socket) -> None:
    """Answer one question on each, echoed."""
    for listener in (udp, tcp):
        listener.setblocking(True)
        listener.settimeout(2)
    question, asker = udp.recvfrom(512)
    udp.sendto(question[::-1], asker)
    accepted, _ = tcp.accept()
    with accepted:
        accepted.sendall(accepted.recv(512)[::-1])


def ask_both(path: str) -> None:
    with opened(path, socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.11", 53))  # accepts answers from port 53 only
        asker.send(b"who")
        assert asker.recv(512) == b"ohw"
    with opened(path, socket.AF_INET, socket.SOCK_STREAM) as asker:
        asker.connect(("127.0.0.11", 53))
        asker.sendall(b"who")
        assert asker.recv(512) == b"ohw"


def test_questions_to_port_53_reach_the_resolver_and_answers_come_from_there(world: World) -> None:
    web = world.container(world.network("shop"))
    udp, tcp = netns.resolver_sockets(web.path)
    with udp, tcp:
        for listener in (udp, tcp):
            assert listener.getsockname()[0] == "127.0.0.11"
        ports = DnsPorts(udp.getsockname()[1], tcp.getsockname()[1])
        web.sandbox = type(web.sandbox)(web.sandbox.id, web.path, web.sandbox.endpoints, dns=ports)
        world.ensure(web)
        server = threading.Thread(target=serve, args=(udp, tcp))
        server.start()
        ask_both(web.path)
        server.join()
        assert "127.0.0.11" not in world.inside(web.path, "cat /proc/net/nf_conntrack 2>/dev/null || true")


def test_a_container_may_itself_serve_on_port_53(world: World) -> None:
    web = world.container(world.network("shop"), dns=DnsPorts(5301, 5302))
    assert world.udp(web.path, web.path, "127.0.0.1", 53)
    assert world.tcp(None, web.path, web.ip, 53)


def test_the_redirect_follows_new_ports_and_goes_with_them(world: World) -> None:
    web = world.container(world.network("shop"), dns=DnsPorts(5301, 5302))
    for dns in (DnsPorts(5401, 5402), None):
        web.sandbox = type(web.sandbox)(web.sandbox.id, web.path, web.sandbox.endpoints, dns=dns)
        world.ensure(web)
        ruleset = world.inside(web.path, "nft list ruleset")
        assert "5301" not in ruleset
        assert ("5401" in ruleset and "5402" in ruleset) == (dns is not None)
