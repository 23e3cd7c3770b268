"""The one job that brings kernel and resolver to what is desired; `test_names.py` shows what comes of it."""

from __future__ import annotations

import logging

import pytest

from netd.sandboxes.reconciler import Reconciler
from tests.fakes.host import host
from tests.fakes.resolver import Mood


def test_one_pass_over_nothing_asks_the_resolver_nothing() -> None:
    with host() as h:
        h.up("web", h.network("red"))
        reconciler: Reconciler = h.reconciler
        made = h.calls.made
        h.run(reconciler.reconcile())
        assert h.calls.made == made


def test_tables_are_told_before_the_sandboxes_that_search_them() -> None:
    with host() as h:
        for name in ("red", "blue"):
            h.up(f"on-{name}", h.network(name))
        h.resolver.begin_anew()
        h.until(lambda: bool(h.resolver.sandboxes))
        assert len(h.resolver.networks) == 2


def test_what_is_gone_is_removed_from_a_resolver_that_served_it() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.store.entries = {k: e for k, e in h.store.entries.items() if "sandboxes/" not in k and red.id not in k}
        h.begin()
        h.run(h.load())
        assert red.id not in h.resolver.networks
        assert web.id not in h.resolver.sandboxes


def test_a_failure_is_told_once_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.calls.broken.add("Kernel.ensure_sandbox")
        with caplog.at_level(logging.WARNING):
            h.resolver.begin_anew()
            h.settle(60)
        assert len(h.calls.failed) > 10
        assert len([line for line in caplog.messages if web.id[:12] in line]) == 1


def test_a_job_that_fails_where_nobody_thought_of_it_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        endpoints, failures = h.networks.endpoints, iter(range(3))

        def failing(live):  # type: ignore[no-untyped-def]
            for _ in failures:
                raise RuntimeError("what nobody thought of")
            return endpoints(live)

        monkeypatch.setattr(h.networks, "endpoints", failing)
        h.resolver.begin_anew()
        h.settle()
        assert h.names_on(red) == {"web"} and h.has_dns(web)


def test_a_change_while_the_table_is_told_is_not_lost() -> None:
    """At each step of telling everything anew, one container more and one less."""
    for steps in range(0, 60, 3):
        with host() as h:
            red = h.network("red")
            web, db = h.up("web", red), h.planned("db", red)
            h.resolver.begin_anew()
            for _ in range(steps):
                h.loop.step()
            tasks = [h.loop.create_task(h.sandboxes.bring_up(db)), h.loop.create_task(h.sandboxes.tear_down(web))]
            h.until(lambda tasks=tasks: all(task.done() for task in tasks))  # type: ignore[misc]
            h.settle()
            assert [task.exception() for task in tasks] == [None, None]
            assert h.names_on(red) == {"db"} and h.has_dns(db)
            assert set(h.resolver.sandboxes) == {db.id}


def test_it_is_settled_when_all_is_told_and_nobody_waits_for_a_resolver_that_is_away() -> None:
    with host() as h:
        h.up("web", h.network("red"))
        assert h.run(h.reconciler.settled(5))
        h.resolver.mood = Mood.GONE
        h.names.dirty.mark_everything()
        h.settle(1)
        before = h.loop.time()
        assert not h.run(h.reconciler.settled(5))
        assert h.loop.time() == before
