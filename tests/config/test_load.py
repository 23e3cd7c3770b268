"""The daemon's options: flags, daemon.json, and what is refused with one clear sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netd.config.load import load, reload
from netd.core.errors import InvalidParameter


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_flags_and_file_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "daemon.json", {"mtu": 1400, "dns": ["192.0.2.1"]})
    loaded = load(["--config-file", path, "-D", "--label", "rack=7", "-H", "unix:///x", "-H", "tcp://[::1]:1"])
    assert (loaded.mtu, loaded.dns, loaded.debug, loaded.labels) == (1400, ("192.0.2.1",), True, ("rack=7",))
    assert loaded.hosts == ("unix:///x", "tcp://[::1]:1")


def test_a_key_in_file_and_flag_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "daemon.json", {"mtu": 1400})
    with pytest.raises(InvalidParameter, match=r"specified both as a flag and in the configuration file: mtu"):
        load(["--config-file", path, "--mtu", "1300"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"nosuch": 1}, "don't match any configuration option: nosuch"),
        ({"mtu": "big"}, 'wrong type for mtu: "big"'),
        ({"mtu": True}, "wrong type for mtu: true"),
        ({"dns": "192.0.2.1"}, "wrong type for dns"),
        ({"dns": ["here"]}, "invalid DNS server 'here'"),
        ({"bip": "10.0.0.1"}, "give the prefix length"),
        ({"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}, "size 8 does not fit"),
        ({"labels": ["x"]}, "key=value"),
        ({"metrics-addr": "9323"}, "invalid metrics-addr '9323': write HOST:PORT"),
        ({"metrics-addr": "127.0.0.1:0"}, "invalid metrics-addr"),
        ("{", "is not valid JSON"),
        ("[]", "must hold one JSON object"),
    ],
)
def test_a_bad_file_is_refused_with_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    path = write(tmp_path / "daemon.json", content)
    with pytest.raises(InvalidParameter, match=words) as caught:
        load(["--config-file", path])
    assert "\n" not in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no such file"):
        load(["--config-file", str(tmp_path / "absent.json")])


def test_a_cluster_store_in_the_file_waits_for_the_next_start(tmp_path: Path) -> None:
    path = write(tmp_path / "daemon.json", {})
    loaded = load(["--config-file", path])
    write(tmp_path / "daemon.json", {"cluster-store": "etcd://h:2379", "cluster-advertise": "192.0.2.1"})
    fresh, late = reload(loaded)
    assert (fresh.cluster_store, late) == ("", ["cluster-advertise", "cluster-store"])
    write(tmp_path / "daemon.json", {"cluster-advertise": "192.0.2.1"})
    loaded = load(["--config-file", path, "--cluster-store=etcd://h:2379"])
    assert reload(loaded)[1] == []


def test_a_reload_takes_what_can_change_and_names_what_cannot(tmp_path: Path) -> None:
    path = write(tmp_path / "daemon.json", {"mtu": 1400})
    loaded = load(["--config-file", path])
    write(tmp_path / "daemon.json", {"mtu": 1300, "debug": True, "labels": ["a=b"]})
    fresh, late = reload(loaded)
    assert (fresh.debug, fresh.labels, fresh.mtu) == (True, ("a=b",), 1400)
    assert late == ["mtu"]
