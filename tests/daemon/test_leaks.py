"""Rounds of create, run and remove leave nothing behind, even when the daemon is killed in the middle of one.

NETD_LEAK_ROUNDS and NETD_LEAK_KILLS set the number of rounds; 200 and 100 are the numbers promised.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemon.harness import Daemon, eventually

ROUNDS = int(os.environ.get("NETD_LEAK_ROUNDS", "200"))
KILLS = int(os.environ.get("NETD_LEAK_KILLS", "100"))


def one_round(daemon: Daemon, number: int, ids: set[str]) -> None:
    """A network, two containers with a port and a link on it, one that ends by itself; then all is removed."""
    daemon.network(f"net{number}")
    ids.add(
        daemon.run_container(
            f"db{number}",
            network=f"net{number}",
            HostConfig={"PortBindings": {"80/tcp": [{"HostPort": ""}], "53/udp": [{"HostPort": "5353"}]}},
        )
    )
    ids.add(daemon.run_container(f"job{number}", "true", network=f"net{number}"))
    daemon.wait(f"job{number}")
    daemon.remove_container(f"job{number}")
    daemon.remove_container(f"db{number}")
    assert daemon.api("DELETE", f"/networks/net{number}").status == 204


def assert_same(daemon: Daemon, before: dict[str, Any], ids: set[str]) -> None:
    """As before, after a moment for what is still on its way out; no control group is left either."""
    deadline = time.monotonic() + 10
    while (after := daemon.snapshot()) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    for part, value in before.items():
        assert after[part] == value, f"{part} changed"
    assert eventually(lambda: daemon.cgroups(ids) == [])


def open_files(daemon: Daemon) -> dict[str, int]:
    """Descriptors of the daemon and of its resolver: a namespace or a socket that is held shows here."""
    return {words: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid, words in daemon.processes().items()}


def test_rounds_leave_nothing(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    ids: set[str] = set()
    one_round(daemon, 0, ids)  # what is made once and kept is not a leak
    before, files = daemon.snapshot(), open_files(daemon)
    for number in range(ROUNDS):
        one_round(daemon, number, ids)
    assert_same(daemon, before, ids)
    for words, number in open_files(daemon).items():
        assert number <= files[words] + 2, words


def test_rounds_with_a_daemon_that_is_killed_leave_nothing(new_daemon: Callable[..., Daemon]) -> None:
    """SIGKILL at random moments of a round; the next daemon finishes or undoes what was begun."""
    daemon = new_daemon()
    ids: set[str] = set()
    one_round(daemon, 0, ids)
    before = daemon.snapshot()
    moments = random.Random(4)
    started = time.monotonic()
    one_round(daemon, 0, ids)
    length = time.monotonic() - started
    for number in range(KILLS):
        death = threading.Timer(moments.uniform(0, length), daemon.kill9)
        death.start()
        # whatever the client saw of the daemon's death
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError, ValueError):
            one_round(daemon, number, ids)
        death.join()
        daemon.start()
        ids |= {item["Id"] for item in daemon.get("/containers/json?all=1")}
        daemon.clean()
    assert_same(daemon, before, ids)


def test_nothing_is_left_when_containers_die_while_the_daemon_is_away(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    one_round(daemon, 0, set())
    before = daemon.snapshot()
    ids = {daemon.run_container(f"c{number}", network="shop", HostConfig={"AutoRemove": True}) for number in range(5)}
    pids = [str(daemon.inspect(identity)["State"]["Pid"]) for identity in ids]
    daemon.kill9()
    subprocess.run(["kill", "-9", *pids], check=True)
    daemon.start()
    assert_same(daemon, before, ids)
