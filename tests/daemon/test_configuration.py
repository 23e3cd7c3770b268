"""Flags, daemon.json, SIGHUP, sockets, TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.harness import HOST_IP, NETD, Daemon, Host, eventually, run

NewDaemon = Callable[..., Daemon]


def refused(*options: str) -> str:
    """The one line with which a daemon with these options refuses to start."""
    with tempfile.TemporaryDirectory(prefix="netd-") as folder:
        roots = (f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--host=unix://{folder}/netd.sock")
        done = run(NETD, "daemon", *roots, *options, check=False, timeout=20)
        left = [process for process in Path("/proc").glob("[0-9]*") if folder in _command_line(process)]
        for process in left:
            os.kill(int(process.name), signal.SIGKILL)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not left, "a process of the refused daemon still ran"
    return str(done.stderr).strip()


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ('{"nosuch": 1}', "nosuch"),
        ('{"debug": "yes"}', "debug"),
        ('{"dns": ["red"]}', "'red'"),
        ('{"bip": "10.0.0.1"}', "10.0.0.1/16"),
        ('{"mtu": -1}', "invalid MTU number: -1"),
        ('{"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}', "size 8"),
        ('{"log-format": "xml"}', "xml"),
        ('{"labels": ["red"]}', "key=value"),
    ],
)
def test_a_configuration_file_that_is_wrong_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(content)
    line = refused(f"--config-file={path}")
    assert words in line
    assert "\n" not in line


def test_a_configuration_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "nosuch") in refused(f"--config-file={tmp_path / 'nosuch'}")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"mtu": 1400}')
    assert "both as a flag and in the configuration file: mtu" in refused(f"--config-file={path}", "--mtu=1300")


def test_flags_shape_the_default_bridge_and_the_pools(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--bip=10.88.0.1/24", "--mtu=1400", "--default-address-pool=base=10.99.0.0/16,size=24")
    bridge = daemon.links()["netd0"]
    assert ("10.88.0.1" in bridge["addresses"], bridge["mtu"]) == (True, 1400)
    daemon.network("shop")
    assert daemon.get("/networks/shop")["IPAM"]["Config"][0]["Subnet"] == "10.99.0.0/24"
    daemon.run_container("web")
    assert daemon.address("web", "bridge") == "10.88.0.2"


def test_the_configuration_file_has_the_same_keys(machine: Host, new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--log-level=info", start=False)
    daemon.config.write_text('{"bip": "10.88.0.1/24", "labels": ["site=cellar"], "dns": ["192.0.2.9"]}')
    daemon.start()
    assert daemon.get("/info")["Labels"] == ["site=cellar"]
    assert "10.88.0.1" in daemon.links()["netd0"]["addresses"]


def test_sighup_reloads_labels_debugging_and_name_servers(machine: Host, new_daemon: NewDaemon, image: Path) -> None:
    machine.start_dns()
    daemon = new_daemon("--log-level=info", start=False)
    daemon.options = []
    daemon.config.write_text('{"dns": ["192.0.2.9"], "labels": ["site=cellar"]}')
    daemon.start()
    daemon.import_image(image)
    daemon.network("shop")
    daemon.config.write_text('{"dns": ["192.0.2.2"], "labels": ["site=attic"], "debug": true}')
    daemon.reload()
    eventually(lambda: daemon.get("/info")["Labels"] == ["site=attic"])
    assert daemon.get("/info")["Debug"] is True
    daemon.run_container("web", network="shop")
    assert daemon.resolve("web", "www.example.test") == {"198.51.100.7"}


def test_sighup_with_a_broken_file_changes_nothing(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(start=False)
    daemon.config.write_text('{"labels": ["site=cellar"]}')
    daemon.start()
    daemon.config.write_text("{")
    daemon.reload()
    eventually(lambda: "not valid JSON" in daemon.log.read_text())
    assert daemon.get("/info")["Labels"] == ["site=cellar"]


def test_the_log_is_json_if_asked(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--log-format=json")
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert lines and all(isinstance(line, dict) for line in lines)


def test_the_socket_is_for_its_owner_and_group(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_a_stale_socket_is_replaced_and_another_file_is_not(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(start=False)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(daemon.socket))
    daemon.start()
    daemon.stop()
    daemon.socket.write_text("precious")
    done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert daemon.socket.read_text() == "precious"


def test_the_pid_file_names_the_daemon_and_goes_with_it(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    daemon = new_daemon(f"--pidfile={path}")
    assert int(path.read_text()) == daemon.pid
    daemon.stop()
    assert not path.exists()


def test_the_service_manager_is_told_when_the_daemon_is_ready(new_daemon: NewDaemon, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    daemon = new_daemon(start=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        daemon.extra_environment["NOTIFY_SOCKET"] = str(path)
        daemon.start()
        assert b"READY=1" in manager.recv(4096)


def test_plain_tcp_is_served_with_a_loud_warning(new_daemon: NewDaemon) -> None:
    daemon = new_daemon("--host=tcp://127.0.0.1:2375")
    assert daemon.host.run("curl", "--silent", "http://127.0.0.1:2375/_ping").stdout == "OK"
    assert "tcp://127.0.0.1:2375" in daemon.log.read_text()
    assert "warn" in daemon.log.read_text().lower()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate authority, one certificate for the daemon and one for its client, in one folder."""
    ca, days = tmp_path / "ca.pem", ("-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    run("openssl", "req", "-x509", "-subj", "/CN=ca", *days, "-keyout", tmp_path / "ca-key.pem", "-out", ca)
    for name, subject in (("server", f"IP:{HOST_IP},IP:127.0.0.1"), ("client", "DNS:client")):
        run(
            *("openssl", "req", "-x509", "-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}", *days),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", ca, "-CAkey", tmp_path / "ca-key.pem"),
            *("-keyout", tmp_path / f"{name}-key.pem", "-out", tmp_path / f"{name}.pem"),
        )
    return tmp_path


def test_tls_lets_in_only_who_has_a_certificate(new_daemon: NewDaemon, certificates: Path) -> None:
    ca, cert, key = (certificates / name for name in ("ca.pem", "server.pem", "server-key.pem"))
    daemon = new_daemon(
        *("--host=tcp://127.0.0.1:2376", "--tlsverify"),
        *(f"--tlscacert={ca}", f"--tlscert={cert}", f"--tlskey={key}"),
    )
    ask = ("curl", "--silent", "--show-error", "--cacert", ca, "https://127.0.0.1:2376/_ping")
    known = ("--cert", certificates / "client.pem", "--key", certificates / "client-key.pem")
    assert daemon.host.run(*ask, *known).stdout == "OK"
    assert "certificate required" in daemon.host.run(*ask, check=False).stderr
    plain = daemon.host.run("curl", "--silent", "--fail", "http://127.0.0.1:2376/_ping", check=False)
    assert plain.returncode != 0


def test_tls_needs_all_its_files(certificates: Path) -> None:
    line = refused("--host=tcp://127.0.0.1:2376", "--tlsverify", f"--tlscacert={certificates / 'nosuch.pem'}")
    assert "nosuch.pem" in line or "tls" in line
