"""Where the API listens, and who is let in."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from netd.core.errors import NetdError
from tests.api.double import Double


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_socket_is_for_root_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "netd.sock"
    with Double(path) as api:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert api.request("GET", "/_ping").status == 200
    assert not path.exists()


def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "netd.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Double(path) as api:
        assert api.request("GET", "/_ping").status == 200


def test_the_socket_of_a_living_daemon_is_not_taken(api: Double) -> None:
    with pytest.raises(NetdError, match="another daemon answers there"), Double(api.path):
        pass
    assert api.request("GET", "/_ping").status == 200


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix://{tmp}/file", "there is a file of another kind"),
        ("{tmp}/x.sock", "write unix://PATH"),
        ("http://127.0.0.1", "netd knows unix://PATH, tcp://HOST:PORT and fd://"),
        ("tcp://127.0.0.1:99999", "Port out of range"),
        ("tcp://192.0.2.99:2375", "annot assign requested address"),
        ("fd://", "systemd passed no sockets"),
    ],
)
def test_what_cannot_be_opened_is_told(tmp_path: Path, host: str, words: str) -> None:
    (tmp_path / "file").write_text("precious")
    first = tmp_path / "first.sock"
    hosts = (f"unix://{first}", host.format(tmp=tmp_path))
    with pytest.raises(NetdError, match=words), Double(first, hosts=hosts):
        pass
    assert not first.exists()
    assert (tmp_path / "file").read_text() == "precious"


def test_plain_tcp_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with Double(tmp_path / "x", hosts=(f"tcp://127.0.0.1:{port}",)):
        done = docker(port)
    assert done.returncode == 0
    assert "WITHOUT encryption or authentication" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


# ---- TLS ----


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, the daemon's certificate, a client's, and one of a client nobody knows."""
    directory = tmp_path_factory.mktemp("tls")
    for ca in ("ca", "stranger-ca"):
        openssl(directory, f"req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2")
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, ca, extra in (
        ("server", "ca", "-extfile san"),
        ("client", "ca", ""),
        ("stranger", "stranger-ca", ""),
    ):
        openssl(directory, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        openssl(
            directory,
            f"x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {name}.pem -days 2 {extra}",
        )
    return directory


def openssl(directory: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=directory, check=True, capture_output=True)


def docker(port: int, *options: str, command: str = "version", **more: Any) -> subprocess.CompletedProcess[bytes]:
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    words = ["docker", "-H", f"tcp://127.0.0.1:{port}", *options, *command.split()]
    return subprocess.run(words, env=env, capture_output=True, timeout=20, check=False, **more)


def client(certificates: Path, name: str = "client") -> list[str]:
    files = {"tlscacert": "ca.pem", "tlscert": f"{name}.pem", "tlskey": f"{name}.key"}
    return ["--tlsverify", *(f"--{option}={certificates / file}" for option, file in files.items())]


def daemon(certificates: Path, port: int, **options: Any) -> Double:
    files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server.key"}
    paths = {option: str(certificates / file) for option, file in files.items()}
    return Double(certificates / "x", **{"hosts": (f"tcp://127.0.0.1:{port}",), "tlsverify": True, **paths, **options})


def test_mutual_tls(certificates: Path) -> None:
    port = free_port()
    with daemon(certificates, port):
        assert docker(port, *client(certificates)).returncode == 0
        assert docker(port, *client(certificates, "stranger")).returncode == 1
        assert docker(port, "--tls").returncode == 1
        assert docker(port).returncode == 1


def test_exec_over_tls(certificates: Path) -> None:
    port = free_port()
    with daemon(certificates, port):
        data = os.urandom(2 << 20)
        done = docker(port, *client(certificates), command="exec -i web cat", input=data)
        assert done.stdout == data
        assert done.stderr == b"read %d bytes\n" % len(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tlscacert": ""}, "TLS needs --tlscacert"),
        ({"tlskey": "/nonexistent"}, "cannot use the TLS files .*/nonexistent.*: No such file"),
        ({"tlscert": "/etc/hostname"}, "cannot use the TLS files .*hostname"),
    ],
)
def test_tls_files_that_do_not_do(certificates: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(NetdError, match=words), daemon(certificates, free_port(), **options):
        pass
