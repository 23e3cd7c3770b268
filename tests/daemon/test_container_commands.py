"""`docker run, ps, exec, logs, stop, rm …` of a stock docker CLI, and what a container finds inside."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest

from tests.daemon.harness import Daemon, eventually
from tests.unix_http import UnixConnection


def test_run_prints_what_the_container_prints_and_ends_with_its_exit_code(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert daemon.get("/containers/json?all=1") == []


def test_run_reads_standard_input(daemon: Daemon) -> None:
    assert daemon.docker("run", "--rm", "-i", "busybox", "tr", "a-z", "A-Z", input="shop\n").stdout == "SHOP\n"


@pytest.mark.parametrize(("command", "code"), [("/nosuch", 127), ("/etc", 126)])
def test_a_command_that_cannot_run_has_the_exit_code_of_a_shell(daemon: Daemon, command: str, code: int) -> None:
    assert daemon.docker("run", "--rm", "busybox", command, check=False).returncode == code


def test_an_image_that_is_not_here_is_named_in_the_error(daemon: Daemon) -> None:
    done = daemon.docker("create", "--pull=never", "nosuch", check=False)
    assert done.returncode == 1
    assert "No such image: nosuch:latest" in done.stderr


def test_environment_folder_user_entrypoint_and_hostname_are_as_asked(daemon: Daemon) -> None:
    script = 'echo "$COLOUR $(pwd) $(id -u) $(hostname) $*"'
    done = daemon.docker(
        *("run", "--rm", "-e", "COLOUR=blue", "-w", "/tmp", "-u", "65534", "--hostname", "shop"),
        *("--entrypoint", "sh", "busybox", "-c", script, "sh", "and", "words"),
    )
    assert done.stdout == "blue /tmp 65534 shop and words\n"


def test_a_folder_of_the_host_is_mounted_and_read_only_if_asked(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("hello\n")
    script = "cat /mnt/note; echo more >>/mnt/note"
    assert daemon.docker("run", "--rm", "-v", f"{tmp_path}:/mnt", "busybox", "sh", "-c", script).stdout == "hello\n"
    assert (tmp_path / "note").read_text() == "hello\nmore\n"
    refused = daemon.docker("run", "--rm", "-v", f"{tmp_path}:/mnt:ro", "busybox", "sh", "-c", script, check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_extra_hosts_and_the_own_name_are_in_the_hosts_file(daemon: Daemon) -> None:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    done = daemon.docker(
        *("run", "--rm", "--net", "shop", "--hostname", "web", "--add-host", "db:192.0.2.9"),
        *("busybox", "cat", "/etc/hosts"),
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["192.0.2.9", "db"] in lines
    assert ["10.77.0.2", "web"] in lines


def test_ps_shows_a_container_through_its_life(daemon: Daemon) -> None:
    def states() -> list[str]:
        return list(daemon.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.splitlines())

    daemon.docker("create", "--name", "web", "busybox", "sleep", "1000")
    assert states() == ["web created"]
    daemon.docker("start", "web")
    assert states() == ["web running"]
    daemon.docker("pause", "web")
    assert states() == ["web paused"]
    daemon.docker("unpause", "web")
    daemon.docker("rename", "web", "shop")
    daemon.docker("kill", "shop")
    assert daemon.docker("wait", "shop").stdout == "137\n"
    assert states() == ["shop exited"]
    daemon.docker("rm", "shop")
    assert states() == []


def test_stop_asks_first_and_kills_after_the_timeout(daemon: Daemon) -> None:
    polite = "trap 'exit 3' TERM; while :; do sleep 0.05; done"
    daemon.docker("run", "-d", "--name", "polite", "busybox", "sh", "-c", polite)
    daemon.docker("run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; sleep 1000")
    daemon.docker("stop", "-t", "5", "polite")
    daemon.docker("stop", "-t", "1", "deaf")
    assert daemon.inspect("polite")["State"]["ExitCode"] == 3
    assert daemon.inspect("deaf")["State"]["ExitCode"] == 137


def test_exec_runs_beside_the_main_process(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "web", "-e", "COLOUR=blue", "busybox", "sleep", "1000")
    done = daemon.docker("exec", "-e", "SIZE=big", "web", "sh", "-c", "echo $COLOUR $SIZE; exit 4", check=False)
    assert (done.stdout, done.returncode) == ("blue big\n", 4)
    assert daemon.docker("exec", "-i", "web", "cat", input="typed").stdout == "typed"
    assert daemon.docker("exec", "web", "/nosuch", check=False).returncode in (126, 127)


def test_the_exit_code_of_an_exec_is_known_when_its_output_ends(daemon: Daemon) -> None:
    daemon.run_container("web")
    for code in range(10):
        identity = daemon.api("POST", "/containers/web/exec", {"Cmd": ["sh", "-c", f"exit {code}"]}).json["Id"]
        daemon.api("POST", f"/exec/{identity}/start", {"Detach": False, "Tty": False})
        assert daemon.get(f"/exec/{identity}/json")["ExitCode"] == code


def test_logs_are_kept_and_followed_to_the_end(daemon: Daemon) -> None:
    script = "echo one; echo two >&2; sleep 0.5; echo three"
    daemon.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", script)
    followed = daemon.docker("logs", "--follow", "web")
    assert (followed.stdout, followed.stderr) == ("one\nthree\n", "two\n")
    assert daemon.docker("logs", "--tail", "1", "web").stdout == "three\n"
    stamped = daemon.docker("logs", "--timestamps", "web").stdout.splitlines()[0]
    assert stamped.endswith("Z one")


def test_attach_types_to_the_main_process_and_shows_what_it_prints(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "-i", "--name", "echo", "busybox", "sh", "-c", "read word; echo you said $word; exit 6")
    done = daemon.docker("attach", "echo", input="hello\n", check=False)
    assert (done.stdout, done.returncode) == ("you said hello\n", 6)


def test_attaching_to_a_container_that_ends_at_that_moment_is_no_error(daemon: Daemon) -> None:
    for _ in range(20):
        daemon.run_container("brief", "true")
        with contextlib.closing(UnixConnection(daemon.socket)) as client:
            client.request("POST", "/containers/brief/attach?stream=1&stdout=1")
            attached = client.getresponse()
            assert attached.status == 200
            daemon.remove_container("brief")  # ends the streams of whoever waits for its next start
            attached.read()


def test_inspect_shows_state_configuration_and_network(daemon: Daemon) -> None:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.docker("run", "-d", "--name", "web", "--net", "shop", "--ip", "10.77.0.9", "busybox", "sleep", "1000")
    container = json.loads(daemon.docker("inspect", "web").stdout)[0]
    assert container["Name"] == "/web"
    assert container["State"]["Running"] is True
    assert container["Config"]["Cmd"] == ["sleep", "1000"]
    assert container["NetworkSettings"]["Networks"]["shop"]["IPAddress"] == "10.77.0.9"
    assert Path(f"/proc/{container['State']['Pid']}").exists()


def test_a_container_shares_the_network_of_the_host_or_of_another(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    own = daemon.docker("exec", "web", "ip", "address", "show", "eth0").stdout
    assert (
        daemon.docker("run", "--rm", "--net", "container:web", "busybox", "ip", "address", "show", "eth0").stdout == own
    )
    assert " lan@" in daemon.docker("run", "--rm", "--net", "host", "busybox", "ip", "link").stdout
    none = daemon.docker("run", "--rm", "--net", "none", "busybox", "ip", "-o", "link").stdout
    assert "lo" in none and "eth0" not in none


def test_images_are_imported_listed_tagged_inspected_and_removed(daemon: Daemon, image: Path) -> None:
    daemon.docker("import", "-c", "ENV COLOUR=blue", str(image), "shop:1")
    daemon.docker("tag", "shop:1", "store:2")
    listed = daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(listed) == ["busybox:latest", "shop:1", "store:2"]
    details = json.loads(daemon.docker("image", "inspect", "store:2").stdout)[0]
    assert sorted(details["RepoTags"]) == ["shop:1", "store:2"]
    assert details["Config"]["Env"] == ["COLOUR=blue"]
    daemon.docker("image", "rm", "shop:1", "store:2")
    assert daemon.docker("image", "ls", "-q", "shop").stdout == ""


def test_an_image_in_use_is_not_removed(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    refused = daemon.docker("image", "rm", "busybox", check=False)
    assert refused.returncode == 1
    assert "conflict" in refused.stderr


def ageless(table: str) -> str:
    """Without the seconds and minutes that pass between two calls."""
    return re.sub(r"(\d+|Less than a|About a) (second|minute)s?", "a while", table)


def test_netd_and_docker_do_the_same_thing(daemon: Daemon) -> None:
    daemon.netd("network", "create", "shop")
    daemon.netd("run", "-d", "--name", "web", "--net", "shop", "busybox", "sleep", "1000")
    for command in (("network", "ls"), ("ps",), ("network", "inspect", "shop"), ("image", "ls")):
        told = [ageless(client(*command).stdout) for client in (daemon.netd, daemon.docker)]
        assert told[0].split() == told[1].split()
    assert daemon.netd("exec", "web", "echo", "hello").stdout == "hello\n"
    assert daemon.netd("rm", "-f", "web").stdout == "web\n"


def test_a_container_that_was_to_be_removed_at_its_end_is_gone(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--rm", "--name", "web", "busybox", "sleep", "0.2")
    eventually(lambda: daemon.get("/containers/json?all=1") == [])
