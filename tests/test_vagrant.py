"""What brings netd up on virtual machines: scripts that parse, a unit that lets containers outlive the daemon."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest

from netd.config.load import load

VAGRANT = Path(__file__).parents[1] / "vagrant"
STORES = ("etcd://192.168.56.10:2379/netd", "consul://192.168.56.10:8500/netd", "zk://192.168.56.10:2181/netd")


def function(script: str, *call: str) -> subprocess.CompletedProcess[str]:
    """One function of a script, called without the rest of it."""
    command = ["bash", "-c", 'source "$1" && "${@:2}"', "bash", str(VAGRANT / script), *call]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("script", ["provision", "provision-store"])
def test_a_script_can_be_run(script: str) -> None:
    assert (VAGRANT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", VAGRANT / script], check=True)


def test_the_unit_reports_readiness_and_stops_only_the_daemon() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(VAGRANT / "netd.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    sandboxing = ("Private", "Protect", "ReadOnly", "ReadWrite", "Restrict", "RuntimeDirectory", "SystemCall")
    assert not [key for key in service if key.startswith(sandboxing)]


@pytest.mark.parametrize("store", STORES)
def test_the_daemon_takes_the_file_that_provisioning_writes(store: str, tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(function("provision", "daemon_json", store, "192.168.56.11").stdout)
    loaded = load(["--config-file", str(file)])
    assert (loaded.cluster_store, loaded.cluster_advertise) == (store, "192.168.56.11")


def test_the_hosts_are_given_stores_in_the_form_the_daemon_takes() -> None:
    lines = (VAGRANT / "Vagrantfile").read_text()
    assert all(f'"{store}"' in lines for store in STORES)


@pytest.mark.parametrize("kind", ["etcd", "consul", "zookeeper"])
def test_every_kind_of_store_has_a_command_line(kind: str) -> None:
    assert function("provision-store", "command_line", kind, "192.168.56.10").stdout.startswith("/")


def test_another_kind_of_store_is_refused_with_the_usage() -> None:
    refused = function("provision-store", "main", "redis", "192.168.56.10")
    assert (refused.returncode, refused.stderr) == (2, "usage: provision-store etcd|consul|zookeeper ADDRESS\n")
