"""`netd lab`: hosts and a store on one machine, from `up` to a `down` that leaves nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import NETD, NO_PROXY, eventually, run
from tests.kvstore.servers import not_installed

Lab = Callable[..., Any]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Call it for `netd lab …`, in a directory of its own."""
    if shutil.which("etcd") is None:
        not_installed("ETCD", "etcd is not installed")
    folder = Path(tempfile.mkdtemp(prefix="netd-"))
    environment = {**NO_PROXY, "NETD_LAB": str(folder / "lab")}

    def call(*words: str, **options: Any) -> Any:
        return run(NETD, "lab", *words, env=environment, **options)

    yield call
    call("down")
    folder.rmdir()


def _status(lab: Lab) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[2:]) for line in lab("status").stdout.splitlines()[1:]}


def _leader(lab: Lab) -> str:
    return next((name for name, state in _status(lab).items() if state == "up etcd, leader"), "")


def test_a_lab_of_two_hosts_is_used_cut_healed_killed_and_removed(lab: Lab) -> None:
    lab("up", "--hosts", "2", "--nodes", "3")
    status = _status(lab)
    assert status["host1"] == status["host2"] == "up netd"
    assert sorted(status[f"store{n}"] for n in (1, 2, 3)) == ["up etcd, follower"] * 2 + ["up etcd, leader"]
    directory = Path(lab("env", "1").stdout.split("unix://")[1].split()[0]).parents[1]
    assert lab("env", "2").stdout == "".join(
        f"export {name}=unix://{directory}/host2/netd.sock\n" for name in ("DOCKER_HOST", "NETD_HOST")
    )
    assert lab("exec", "2", "--", "hostname").stdout == "host2\n"

    lab("exec", "1", "--", NETD, "network", "create", "-d", "overlay", "shop")
    for host, name in (("1", "db"), ("2", "web")):
        lab("exec", host, "--", NETD, "run", "-d", "--name", name, "--network", "shop", "busybox", "sleep", "1000")

    def reaches() -> bool:
        ping = ("exec", "db", "ping", "-c1", "-W1", "web")
        return bool(lab("exec", "1", "--", NETD, *ping, check=False).returncode == 0)

    eventually(reaches)
    lab("cut", "2")
    assert _status(lab)["host2"] == "cut netd"
    assert not reaches()
    lab("heal", "2")
    eventually(reaches)

    leader = _leader(lab)
    lab("kill", "leader")
    assert _status(lab)[leader] == "killed -"
    assert leader != eventually(lambda: _leader(lab), within=20)
    assert reaches()
    lab("heal", leader)
    assert _status(lab)[leader].startswith("up etcd, ")

    lab("kill", "2")
    assert _status(lab)["host2"] == "killed -"
    assert not reaches()
    for words, told in (
        (("cut", "2"), "host2 was killed: `netd lab heal host2` brings it back\n"),
        (("exec", "2", "ls"), "host2 was killed: `netd lab heal host2` brings it back\n"),
        (("kill", "9"), 'there is no "9" in the lab: it has host1, host2, store1, store2, store3\n'),
        (("env", "store1"), "store1 runs no netd: name a host\n"),
        (("up", "--hosts", "1"), "only hosts can be added to it: run `netd lab down` first\n"),
    ):
        assert lab(*words, check=False).stderr.endswith(told)
    lab("up")
    assert _status(lab)["host2"] == "up netd"

    lab("down")
    assert not directory.exists()
    assert "netd-lab" not in run("ip", "netns").stdout
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    lab("down")


def test_mistakes_are_told_in_a_sentence(lab: Lab) -> None:
    for words, told in (
        (("env", "1"), "there is no lab: `netd lab up` makes one"),
        (("status",), "there is no lab: `netd lab up` makes one"),
        (("up", "--nodes", "2"), "a store has 1 or 3 nodes"),
        (("up", "--store", "redis"), "it must be etcd, consul or zookeeper"),
        (("up", "--mtu", "576"), "it must be 1280 to 65535"),
    ):
        failed = lab(*words, check=False)
        assert told in failed.stderr
        assert failed.returncode != 0
