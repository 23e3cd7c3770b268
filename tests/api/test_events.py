"""GET /events and the bus behind it (section 2M)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from typing import Any

import pytest

from netd.core.events import Event, EventBus
from netd.core.filters import Filters
from tests.api.double import Double
from tests.unix_http import UnixConnection

WEB = ("container", "start", "c1", {"image": "busybox:latest", "name": "web", "tier": "front"})
JOIN = ("network", "connect", "n1", {"name": "shop", "type": "bridge", "container": "c1"})


def collect(bus: EventBus, *, since: float | None = 0, until: float | None = None, **wanted: list[str]) -> list[str]:
    async def read() -> list[str]:
        with bus.subscribe(Filters.parse(json.dumps(wanted)), since, until or time.time()) as events:
            return [f"{event['Type']} {event['Action']}" async for event in events]

    return asyncio.run(read())


def past() -> EventBus:
    bus = EventBus()
    bus.publish(*WEB)
    bus.publish(*JOIN)
    bus.publish("container", "exec_create: ls -l", "c1", {"image": "busybox:latest", "name": "web"})
    return bus


def test_a_container_event_has_dockers_shape() -> None:
    async def first() -> Event:
        bus = EventBus()
        with bus.subscribe(Filters(), None, None) as events:
            bus.publish(*WEB)
            return await anext(events)

    event = asyncio.run(first())
    seconds, nanoseconds = event.pop("time"), event.pop("timeNano")
    assert seconds == nanoseconds // 1_000_000_000
    assert event == {
        "status": "start",
        "id": "c1",
        "from": "busybox:latest",
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "c1", "Attributes": WEB[3]},
        "scope": "local",
    }


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["container start", "network connect", "container exec_create: ls -l"]),
        ({"type": ["network"]}, ["network connect"]),
        ({"event": ["connect", "start"]}, ["container start", "network connect"]),
        ({"event": ["exec_create"]}, ["container exec_create: ls -l"]),
        ({"network": ["shop"]}, ["network connect"]),
        ({"network": ["n1"], "event": ["connect"]}, ["network connect"]),
        ({"container": ["web"], "event": ["start"]}, ["container start"]),
        ({"image": ["busybox"], "event": ["start"]}, ["container start"]),
        ({"label": ["tier=front"]}, ["container start"]),
        ({"scope": ["swarm"]}, []),
    ],
)
def test_filters(wanted: dict[str, list[str]], found: list[str]) -> None:
    assert collect(past(), **wanted) == found


def test_without_since_only_what_comes_is_told() -> None:
    assert collect(past(), since=None) == []


def test_until_ends_the_stream() -> None:
    began = time.monotonic()
    assert collect(past(), since=None, until=time.time() + 0.1) == []
    assert 0.05 < time.monotonic() - began < 1


def test_a_reader_that_lags_is_dropped_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def lag() -> int:
        bus = EventBus()
        events = bus.subscribe(Filters(), None, None)
        for _ in range(5000):
            bus.publish(*JOIN)
        return len([event async for event in events])

    assert asyncio.run(lag()) == 1024
    assert "lags 1024 events behind" in caplog.text


def test_the_history_is_bounded() -> None:
    bus = EventBus()
    for _ in range(5000):
        bus.publish(*JOIN)
    assert len(collect(bus)) == 1024


def test_an_unknown_filter_is_refused(api: Double) -> None:
    reply = api.request("GET", '/events?filters={"colour":["red"]}')
    assert (reply.status, reply.message) == (400, "invalid filter 'colour'")


def test_events_arrive_as_they_happen(api: Double) -> None:
    connection = UnixConnection(api.path, timeout=10)
    connection.request("GET", "/v1.48/events")
    answer = connection.getresponse()  # the head is there before the first event
    for number in range(3):
        api.call(api.events.publish, "network", "create", f"n{number}", {"name": "x"})
        event: dict[str, Any] = json.loads(answer.readline())
        assert event["Actor"]["ID"] == f"n{number}"
    connection.close()


def test_a_reader_that_leaves_is_forgotten(api: Double) -> None:
    connection = UnixConnection(api.path, timeout=10)
    connection.request("GET", "/events")
    connection.getresponse()
    assert len(api.events._subscriptions) == 1
    connection.close()
    assert connection.sock is None
    deadline = time.monotonic() + 5
    while api.events._subscriptions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not api.events._subscriptions


def test_docker_events(api: Double) -> None:
    api.call(api.events.publish, *JOIN)
    api.call(api.events.publish, *WEB)
    now = str(time.time() + 0.2)
    command = ["docker", "events", "--since", "1h", "--until", now, "--filter", "network=shop"]
    env = {**os.environ, "DOCKER_HOST": f"unix://{api.path}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=True)
    assert "network connect n1 (container=c1, name=shop, type=bridge)" in done.stdout
    assert len(done.stdout.splitlines()) == 1
