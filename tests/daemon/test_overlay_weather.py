"""Three hosts on each of the three stores, in fair weather and in foul: five minutes of cuts, kills and creates.

The stores' worlds live at the same time, each in a thread of its own that mostly waits; a test waits for its part of
one of them. NETD_WEATHER_SECONDS makes the foul weather shorter or longer (0: none at all); NETD_WEATHER_SEED repeats
a schedule.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.daemon import scenes
from tests.daemon.world import World
from tests.kvstore.conftest import started

KINDS = ("etcd", "consul", "zookeeper")
SECONDS = float(os.environ.get("NETD_WEATHER_SECONDS", "300"))
SEED = os.environ.get("NETD_WEATHER_SEED", "4")

pytestmark = pytest.mark.skipif(SECONDS <= 0, reason="NETD_WEATHER_SECONDS is 0")


class Life:
    """What becomes of one store's world: a scene after the other, each with its outcome."""

    def __init__(self, kind: str, number: int, folder: Path, image: Path) -> None:
        self.kind = kind
        self._place = (number, folder, image)
        self._outcomes: dict[str, Future[str]] = {name: Future() for name in scenes.NAMES}
        self._thread = threading.Thread(target=self._live, name=kind)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._thread.join()

    def shows(self, name: str) -> None:
        """Wait for a scene, and fail as it did."""
        told = self._outcomes[name].result()
        print(f"\n{self.kind}, NETD_WEATHER_SEED={SEED}: {told}")

    def _live(self) -> None:
        number, folder, image = self._place
        try:
            server = started(self.kind, folder)
        except BaseException as error:  # a skip for want of the server is one too
            return self._never(error)
        world = World(self.kind, server, number, image)
        try:
            world.make()
            scenes.play(world, f"{SEED}/{self.kind}", SECONDS, self._told)
            self._never(AssertionError("an earlier scene failed, and so this one was not played"))
        except BaseException as error:  # raised again by the tests that wait
            self._never(error)
        finally:
            world.remove()
            server.stop()

    def _told(self, name: str, outcome: str | BaseException) -> None:
        if isinstance(outcome, BaseException):
            outcome.add_note(f"on {self.kind}, NETD_WEATHER_SEED={SEED}, in {name}")
            self._outcomes[name].set_exception(outcome)
        else:
            self._outcomes[name].set_result(outcome)

    def _never(self, error: BaseException) -> None:
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[dict[str, Life]]:
    found = {kind: Life(kind, 1 + n, tmp_path_factory.mktemp(kind), image) for n, kind in enumerate(KINDS)}
    for life in found.values():
        life.begin()
    yield found
    for life in found.values():
        life.end()


@pytest.fixture(params=KINDS)
def life(request: pytest.FixtureRequest, lives: dict[str, Life]) -> Life:
    return lives[request.param]


def test_thirty_containers_find_and_reach_each_other_by_name_and_nobody_on_another_network(life: Life) -> None:
    life.shows("names")


def test_an_address_used_again_on_another_host_is_reached_from_everywhere_within_2_seconds(life: Life) -> None:
    life.shows("reuse")


def test_whatever_is_deleted_by_hand_is_back_within_a_second(life: Life) -> None:
    life.shows("repair")


def test_a_dead_host_is_forgotten_within_its_lease_and_comes_back_with_what_is_still_its_own(life: Life) -> None:
    life.shows("death")


def test_a_host_cut_off_for_a_minute_has_no_address_twice_no_ghost_and_loses_nothing(life: Life) -> None:
    life.shows("cut")


def test_a_minute_without_the_store_stops_nothing_but_global_changes(life: Life) -> None:
    life.shows("outage")


def test_after_five_minutes_of_random_cuts_kills_and_creates_all_hosts_agree(life: Life) -> None:
    life.shows("storm")
