"""Clients that know nothing of netd drive it unmodified: docker-py and docker-compose (version 1, in Python)."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from socket import SHUT_WR
from typing import Any

import pytest

from tests.daemon.harness import Daemon, run

# docker-py leaves the sockets of its streams to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

docker = pytest.importorskip("docker", reason="docker-py is not installed")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Any]:
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="auto", timeout=20)
    yield client
    client.close()
    del client
    gc.collect()


def test_docker_py_makes_inspects_and_removes_networks(client: Any) -> None:
    pool = docker.types.IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.254")
    shop = client.networks.create("shop", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"})
    web = client.containers.create("busybox", ["sleep", "1000"], name="web", stop_signal="SIGKILL")
    web.start()
    shop.connect(web, aliases=["www"], ipv4_address="10.77.0.9")
    shop.reload()
    assert shop.attrs["Containers"][web.id]["IPv4Address"] == "10.77.0.9/24"
    assert [network.name for network in client.networks.list(filters={"label": "a=b"})] == ["shop"]
    shop.disconnect(web)
    shop.reload()
    assert shop.attrs["Containers"] == {}
    web.remove(force=True)
    shop.remove()
    with pytest.raises(docker.errors.NotFound, match="network shop not found"):
        client.networks.get("shop")


def test_docker_py_runs_a_container_and_reads_its_output(client: Any) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as failure:
        client.containers.run("busybox", ["sh", "-c", "echo wrong >&2; exit 3"], remove=True)
    assert (failure.value.exit_status, failure.value.stderr) == (3, b"wrong\n")


def test_docker_py_lives_through_a_containers_life(client: Any) -> None:
    web = client.containers.run(
        "busybox",
        ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"],
        name="web",
        detach=True,
        environment={"COLOUR": "blue"},
        ports={"80/tcp": ("127.0.0.1", 8080)},
    )
    output = web.logs(stream=True, follow=True)
    assert next(output) == b"ready\n"
    output.close()
    assert web.exec_run("sh -c 'echo $COLOUR; echo no >&2; exit 4'", demux=True) == (4, (b"blue\n", b"no\n"))
    assert b"".join(web.exec_run("echo streamed", stream=True).output) == b"streamed\n"
    assert [found.name for found in client.containers.list()] == ["web"]
    web.pause()
    web.reload()
    assert web.status == "paused"
    web.unpause()
    web.rename("shop")
    web.reload()
    assert web.ports == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert web.top()["Processes"]
    web.stop(timeout=5)
    assert web.wait()["StatusCode"] == 5
    web.start()
    web.restart(timeout=1)
    web.kill()
    assert web.wait()["StatusCode"] == 137
    web.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("web")


def test_docker_py_types_into_a_container(client: Any) -> None:
    config = {"stdin_open": True, "host_config": client.api.create_host_config()}
    upper = client.api.create_container("busybox", ["tr", "a-z", "A-Z"], **config)["Id"]
    typing = client.api.attach_socket(upper, params={"stdin": 1, "stream": 1})
    client.api.start(upper)
    typing._sock.sendall(b"hello\n")
    typing._sock.shutdown(SHUT_WR)
    assert client.api.wait(upper)["StatusCode"] == 0
    assert client.api.logs(upper) == b"HELLO\n"
    typing.close()
    client.api.remove_container(upper)


def test_docker_py_sees_events_and_the_system(client: Any) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"]
    assert client.info()["Containers"] == 0
    events = client.events(decode=True, filters={"type": "network"})
    client.networks.create("shop")
    event = next(events)
    events.close()
    assert (event["Type"], event["Action"], event["Actor"]["Attributes"]["name"]) == ("network", "create", "shop")


COMPOSE_FILE = """
version: "3.8"
services:
  db:
    image: busybox
    command: ["sleep", "1000"]
    stop_signal: SIGKILL
    networks:
      back: {aliases: [sql]}
  web:
    image: busybox
    command: sh -c "echo up; exec sleep 1000"
    stop_signal: SIGKILL
    depends_on: [db]
    ports: ["127.0.0.1:8080:80"]
    environment: {COLOUR: blue}
    networks: [back, front]
networks:
  back:
    ipam: {config: [{subnet: 10.77.0.0/24}]}
  front: {}
"""


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_compose_brings_a_project_up_and_down(daemon: Daemon, tmp_path: Path) -> None:
    # then it does itself what it asks of the docker CLI otherwise, which may be missing; `run` attaches after the start
    environment = {**daemon.environment, "COMPOSE_INTERACTIVE_NO_CLI": "1"}

    def compose(*arguments: str) -> str:
        command = ("docker-compose", "--project-name", "shop", *arguments)
        return str(run(*command, cwd=tmp_path, env=environment).stdout)

    (tmp_path / "docker-compose.yml").write_text(COMPOSE_FILE)
    compose("up", "-d")
    assert {network["Name"] for network in daemon.get("/networks")} >= {"shop_back", "shop_front"}
    assert "blue" in compose("exec", "-T", "web", "sh", "-c", "echo $COLOUR")
    assert "10.77.0." in compose("exec", "-T", "web", "nslookup", "sql")
    assert compose("ps", "-q").split() == [daemon.inspect(f"shop_{name}_1")["Id"] for name in ("db", "web")]
    assert "up" in compose("logs", "--no-color", "web")
    compose("up", "-d", "--scale", "db=2")
    assert len(compose("ps", "-q", "db").split()) == 2
    assert compose("port", "web", "80").strip() == "127.0.0.1:8080"
    compose("restart", "web")
    assert "blue" in compose("run", "--rm", "-T", "web", "sh", "-c", "sleep 1; echo $COLOUR")
    compose("down")
    assert daemon.get("/containers/json?all=1") == []
    assert {network["Name"] for network in daemon.get("/networks")} == {"bridge", "host", "none"}
