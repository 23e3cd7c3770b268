"""Bad weather for a world of three hosts: a schedule that a seed repeats, and what it does to them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drivers.spec import DriverError
from tests.daemon.eyes import Eye, look
from tests.daemon.harness import Reply
from tests.daemon.world import HOSTS, Place, World

PACE = 2.0  # seconds between two steps, on average
CROWD = 9  # containers beside the residents
STEPS = {"run": 10, "remove": 6, "restart": 2, "end": 2, "cut": 2, "kill": 2, "deaf": 1, "power": 1, "away": 1}
LASTS = {"cut": (1, 20), "kill": (0, 8), "power": (2, 25), "away": (1, 8)}  # seconds
RESIDENTS = {f"{network}-{host}": host for network in ("red", "blue") for host in HOSTS}


@dataclass(frozen=True)
class Step:
    """What happens `at` some second to a host for `lasts` seconds; `pick` chooses among what is there then."""

    at: float
    what: str
    host: int
    lasts: float
    pick: float

    def __str__(self) -> str:
        return f"{self.at:.1f} s: {self.what} on host{self.host}" + (f" for {self.lasts:.1f} s" if self.lasts else "")


def schedule(seed: str, seconds: float, calm: list[tuple[float, float]]) -> list[Step]:
    """Steps for so many seconds. What lasts is over before a `calm` span begins, and does not begin in one."""
    choose = random.Random(seed)
    steps: list[Step] = []
    busy = dict.fromkeys((0, *HOSTS), 0.0)  # until when a host (0: the store) is in trouble
    at = 0.0
    while (at := at + choose.expovariate(1 / PACE)) < seconds:
        what = choose.choices(list(STEPS), list(STEPS.values()))[0]
        host, lasts, pick = choose.choice(HOSTS), choose.uniform(*LASTS.get(what, (0, 0))), choose.random()
        whose = 0 if what == "away" else host
        if what in LASTS:
            until = at + lasts
            if busy[whose] > at or until > seconds or any(at < end and until > begin for begin, end in calm):
                continue
            busy[whose] = until
        steps.append(Step(at, what, host, lasts, pick))
    return steps


class Storm:
    """Carries out steps, and ends what lasts in time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.slowest = 0.0  # seconds until a global change was refused for want of the store
        self.refused: defaultdict[int, int] = defaultdict(int)
        self.done: list[str] = []
        self._number = 0
        self._used: list[str] = []
        self._ends: list[tuple[float, str, Callable[[], None]]] = []
        self._off: dict[int, str] = {}  # hosts whose daemon does not run, or that are cut off
        self._left: list[tuple[int, str]] = []  # containers that have ended
        self.watch = Watch(world)

    # ---- time -------------------------------------------------------------------------------------------

    def blow(self, steps: list[Step], begun: float, until: float) -> None:
        """Carry out what is due until `until` seconds after `begun`."""
        while steps and steps[0].at < until:
            step = steps.pop(0)
            self._wait(begun + step.at)
            self.done.append(str(step))
            getattr(self, f"_{step.what}")(step)
        self._wait(begun + until)

    def _wait(self, moment: float) -> None:
        while True:
            self._ends.sort(key=lambda end: end[0])
            if self._ends and self._ends[0][0] <= max(time.monotonic(), moment):
                due, what, end = self._ends.pop(0)
                time.sleep(max(0.0, due - time.monotonic()))
                self.done.append(f"      {what}")
                end()
                continue
            time.sleep(max(0.0, moment - time.monotonic()))
            return

    def settle(self) -> None:
        """End all that lasts."""
        while self._ends:
            _, what, end = self._ends.pop(0)
            self.done.append(f"      {what}")
            end()

    def _later(self, seconds: float, what: str, end: Callable[[], None]) -> None:
        self._ends.append((time.monotonic() + seconds, what, end))

    # ---- containers -------------------------------------------------------------------------------------

    def _run(self, step: Step) -> None:
        if self._off.get(step.host, "cut") != "cut":
            return
        others = self.world.wanted.keys() - RESIDENTS.keys()
        if len(others) >= CROWD:
            return self._remove(step)
        choose = random.Random(step.pick)
        self._number += 1
        name, member = f"c{self._number}", self.world.members[step.host]
        networks = choose.choice((("red",), ("blue",), ("red", "blue")))
        more = {"HostConfig": {"RestartPolicy": {"Name": "always"}}} if choose.random() < 0.5 else {}
        if networks[0] == "red" and self._used and choose.random() < 0.3:
            address = choose.choice(self._used[-10:])
            more["NetworkingConfig"] = {"EndpointsConfig": {"red": {"IPAMConfig": {"IPv4Address": address}}}}
        member.create(name, "sleep", "100000", network=networks[0], **more)
        if not self._changed(lambda: member.api("POST", f"/containers/{name}/start"), 204):
            member.remove_container(name)
            return
        self.world.wanted[name] = step.host
        if networks[0] == "red":
            self._used.append(member.address(name, "red"))
        for network in networks[1:]:
            path, body = f"/networks/{network}/connect", {"Container": name}
            self._changed(lambda p=path, b=body: member.api("POST", p, b), 200)  # type: ignore[misc]

    def _changed(self, change: Callable[[], Reply], status: int) -> bool:
        """Whether a global change was made; the only reasons against it are the store and an address in use."""
        begun = time.monotonic()
        reply = change()
        if reply.status == status:
            return True
        self.refused[reply.status] += 1
        if reply.status == 503:
            self.slowest = max(self.slowest, time.monotonic() - begun)
        else:
            assert reply.status == 403 and "Address already in use" in reply.message, reply
        return False

    def _one(self, step: Step) -> str | None:
        """One of the host's containers, residents aside."""
        if self._off.get(step.host, "cut") != "cut":
            return None
        there = sorted(n for n, host in self.world.wanted.items() if host == step.host and n not in RESIDENTS)
        return there[int(step.pick * len(there))] if there else None

    def _remove(self, step: Step) -> None:
        if name := self._one(step):
            self.world.rm(name)

    def _restart(self, step: Step) -> None:
        name = self._one(step)
        if name and not self._changed(
            lambda: self.world.members[step.host].api("POST", f"/containers/{name}/restart?t=0"), 204
        ):
            self.world.rm(name)

    def _end(self, step: Step) -> None:
        """Its process dies; some containers are started again by their daemon."""
        if name := self._one(step):
            member = self.world.members[step.host]
            shown = member.inspect(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(shown["State"]["Pid"] or 1 << 22, signal.SIGKILL)
            if shown["HostConfig"]["RestartPolicy"]["Name"] != "always":
                self.world.forget(name)
                self._left.append((step.host, name))

    def tidy(self) -> None:
        """Remove the containers that have ended."""
        for host, name in self._left:
            self.world.members[host].api("DELETE", f"/containers/{name}?force=1")
        self._left.clear()

    # ---- hosts and the store ----------------------------------------------------------------------------

    def _cut(self, step: Step) -> None:
        self.cut(step.host, step.lasts)

    def cut(self, host: int, seconds: float) -> None:
        member = self.world.members[host]
        if host in self._off:
            return
        self._off[host] = "cut"
        self.watch.trouble(host)
        member.cut()
        self._later(seconds, f"healed: host{host}", lambda: self._well(host, member.heal))

    def _kill(self, step: Step) -> None:
        """Kill the daemon."""
        member = self.world.members[step.host]
        if step.host not in self._off:
            self._off[step.host] = "killed"
            member.kill9()
            self._later(step.lasts, f"started: netd on host{step.host}", lambda: self._well(step.host, member.start))

    def _deaf(self, step: Step) -> None:
        """Kill the resolver."""
        member = self.world.members[step.host]
        for pid, words in member.processes().items():
            if "netd-dns" in words:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _power(self, step: Step) -> None:
        """The host is off, and boots again."""
        host, member = step.host, self.world.members[step.host]
        if host in self._off:
            return
        for item in member.get("/containers/json"):
            name = item["Names"][0][1:]
            if member.inspect(name)["HostConfig"]["RestartPolicy"]["Name"] != "always":
                self.world.forget(name)
                self._left.append((host, name))
        self._off[host] = "off"
        self.watch.trouble(host)
        member.power_off()
        self._later(step.lasts, f"booted: host{host}", lambda: self._well(host, member.boot))

    def _well(self, host: int, end: Callable[[], None]) -> None:
        end()
        del self._off[host]
        self.watch.over(host)

    def _away(self, step: Step) -> None:
        """Nobody reaches the store."""
        self.world.hub.block_store(blocked=True)
        self._later(step.lasts, "the store is back", lambda: self.world.hub.block_store(blocked=False))


EVERY = 0.5  # seconds between two looks of the watch
RECOVERS = 20.0  # seconds a host may be hard to reach after its trouble
BLINK = 3.0  # seconds of silence that are no interruption: on a busy machine an answer may be late


class Watch:
    """Lets the residents of all hosts ping each other all the time, and remembers when one did not answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._misses: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._bad: defaultdict[int, list[list[float]]] = defaultdict(list)

    def trouble(self, host: int) -> None:
        self._bad[host].append([time.monotonic(), float("inf")])

    def over(self, host: int) -> None:
        """A host is well again, soon."""
        if self._bad[host]:
            self._bad[host][-1][1] = min(self._bad[host][-1][1], time.monotonic() + RECOVERS)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Watch while the inside runs."""
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), name=f"watch {self._world.kind}")
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def _watch(self, stop: threading.Event) -> None:
        seen: dict[str, tuple[Place, Eye]] = {}
        while not stop.wait(EVERY):
            for name in RESIDENTS:
                if name in seen and not os.path.exists(f"/proc/{seen[name][0].pid}"):
                    seen.pop(name)[1].close()
                if name not in seen:
                    with contextlib.suppress(OSError, AssertionError, StopIteration, DriverError):
                        place = self._world.place(name, name.partition("-")[0])
                        seen[name] = place, Eye(place.pid)
            self._look(seen, time.monotonic())
        for _, each in seen.values():
            each.close()

    def _look(self, there: dict[str, tuple[Place, Eye]], now: float) -> None:
        for network in ("red", "blue"):
            here = [
                pair for n, pair in there.items() if pair[0].network == network and self._is_well(RESIDENTS[n], now)
            ]
            seen = look([each for _, each in here], (), {place.address for place, _ in here}, within=1)
            for one, each in here:
                for other, _ in here:
                    if other.address not in seen[each].alive:
                        self._misses[one.name, other.name].append(now)

    def _is_well(self, host: int, moment: float) -> bool:
        return not any(begin <= moment <= end for begin, end in self._bad[host])

    def interruptions(self) -> list[str]:
        """Which residents of hosts that were well did not reach each other for how long."""
        found = []
        for (one, other), missed in self._misses.items():
            begin = before = missed[0]
            for moment in [*missed[1:], float("inf")]:
                if moment - before > 2.5 * EVERY + 1:
                    if before - begin > BLINK:
                        found.append(f"{one} did not reach {other} for {before - begin:.1f} s")
                    begin = moment
                before = moment
        return found
