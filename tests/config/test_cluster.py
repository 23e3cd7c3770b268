"""The daemon's cluster options: Docker's names, and its words for what is wrong (facts 4.1 to 4.3)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from netd.config import load as config
from netd.config.cluster import Advertise, lease_seconds, parse_advertise
from netd.config.values import Config
from netd.core.errors import InvalidParameter

STORE = ("--cluster-store", "etcd://10.1.1.1:2379,10.1.1.2/netd")


def load(*flags: str) -> Config:
    return config.load([*flags, "--config-file", "/dev/null"])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--cluster-advertise", "eth0"],
            "invalid cluster configuration. --cluster-advertise must be accompanied by --cluster-store configuration",
        ),
        ([*STORE, "--cluster-advertise", "10.0.0.1:http"], "invalid --cluster-advertise configuration: http is"),
        ([*STORE, "--cluster-advertise", "127.0.0.1"], "other hosts cannot reach this one at 127.0.0.1"),
        ([*STORE, "--cluster-advertise", ":2376"], "invalid --cluster-advertise configuration: ':2376'"),
        ([*STORE, "--cluster-store-opt", "discovery.heartbeat=0"], "discovery.heartbeat must be positive"),
        ([*STORE, "--cluster-store-opt", "discovery.ttl=-1"], "discovery.ttl must be positive"),
        (
            [*STORE, "--cluster-store-opt", "discovery.ttl=5", "--cluster-store-opt", "discovery.heartbeat=5"],
            "discovery.ttl timer must be greater than discovery.heartbeat",
        ),
        ([*STORE, "--cluster-store-opt", "kv.colour=red"], "unknown --cluster-store-opt kv.colour: use one of"),
        (["--cluster-store", "redis://a"], "the kinds of stores are consul, etcd, zk"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(flags: Sequence[str], complaint: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        load(*flags)
    assert complaint in str(refused.value)


def test_the_options_come_from_flags_or_from_daemon_json(tmp_path: Path) -> None:
    given = load(*STORE, "--cluster-advertise", "eth0:2376", "--cluster-store-opt", "kv.path=x")
    file = tmp_path / "daemon.json"
    file.write_text(
        json.dumps(
            {"cluster-store": STORE[1], "cluster-advertise": "eth0:2376", "cluster-store-opts": {"kv.path": "x"}}
        )
    )
    read = config.load(["--config-file", str(file)])
    assert (read.cluster_store, read.cluster_advertise) == (given.cluster_store, given.cluster_advertise)
    assert read.cluster_store_opts == given.cluster_store_opts == (("kv.path", "x"),)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.1", Advertise("10.0.0.1")),
        ("10.0.0.1:2376", Advertise("10.0.0.1", 2376)),
        ("eth0:2376", Advertise("eth0", 2376)),
        ("fd00::1", Advertise("fd00::1")),
        ("[fd00::1]:2376", Advertise("fd00::1", 2376)),
    ],
)
def test_an_address_or_an_interface_is_advertised(text: str, meant: Advertise) -> None:
    assert parse_advertise(text) == meant


@pytest.mark.root
def test_an_interface_stands_for_its_first_address(netns: Callable[[], str]) -> None:
    name = netns()
    for command in ("link add d0 type bridge", "link set d0 up", "address add 192.0.2.7/24 dev d0"):
        subprocess.run(["ip", "-n", name, *command.split()], check=True)
    subprocess.run(["ip", "-n", name, "link", "add", "d1", "type", "bridge"], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "d1", "up"], check=True)
    subprocess.run(["ip", "-n", name, "address", "add", "fd00::7/64", "dev", "d1", "nodad"], check=True)
    program = (
        "from netd.config.cluster import parse_advertise\n"
        "print(parse_advertise('d0').address(), parse_advertise('d1').address())\n"
        "parse_advertise('lo').address()"
    )
    ran = subprocess.run(
        ["ip", "netns", "exec", name, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == ["192.0.2.7", "fd00::7"]
    assert "there is no interface lo with an address" in ran.stderr


def test_a_host_is_missed_after_the_discovery_ttl() -> None:
    assert lease_seconds({}, 10) == 10
    assert lease_seconds({"discovery.ttl": "30"}, 10) == 30
    assert lease_seconds({"discovery.heartbeat": "5"}, 10) == 15
