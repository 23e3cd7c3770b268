"""Doing something in a world of fakes as often as it has steps: each time another one fails, or is interrupted."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from tests.fakes.calls import Call
from tests.fakes.loop import ACTOR
from tests.fakes.world import World

T = TypeVar("T")
Work = Callable[[World], Coroutine[Any, Any, Any]]


def failures(make: Callable[[], World], work: Work) -> Iterator[tuple[World, str, BaseException | None]]:
    """For each call that `work` makes to a fake: a world in which just that one failed, its name, and what came of it.

    All is quiet by then.
    """
    for number in itertools.count():
        with _world(make) as world:
            failed, error = _fail(world, work, number)
            if not failed:
                return
            yield world, failed, error


def _fail(world: World, work: Work, number: int) -> tuple[str, BaseException | None]:
    """Let the call of this number fail; its name, empty if there are not so many."""
    task, seen, failed = world.loop.create_task(work(world)), list[Call](), ""
    while not task.done():
        for call in world.calls.waiting:
            if call not in seen:
                seen.append(call)
                if len(seen) - 1 == number:
                    call.fails, failed = True, call.name
        if world.loop.step() is None and not world.loop.pass_time(world.loop.time() + 90):
            raise AssertionError("it waits for ever")
    world.loop.settle()
    return failed, task.exception()


def meetings(make: Callable[[], World], first: Work, second: Work) -> Iterator[tuple[World, Any, Any]]:
    """For each await of `first`: a world in which `second` began just then, and what came of both.

    The second goes as far as it can before anything else goes on. What came is a result or an error. The last one
    is a world in which the second came when the first was over.
    """
    for number in itertools.count():
        with _world(make) as world:
            one = world.loop.create_task(first(world))
            for _ in range(number):
                if not one.done():
                    world.loop.step()
            over = one.done()
            context = copy_context()
            context.run(ACTOR.set, "second")
            other = world.loop.create_task(second(world), context=context)
            world.loop.first_goes = "second"
            world.loop.settle()
            yield world, _outcome(one), _outcome(other)
            if over:
                return


def _outcome(task: Any) -> Any:
    assert task.done(), "it waits for ever"
    return task.exception() or task.result()


@contextmanager
def _world(make: Callable[[], World]) -> Iterator[World]:
    logging.getLogger("netd").propagate = False  # what fails is told there, rightly
    world = make()
    try:
        yield world
    finally:
        world.close()
        logging.getLogger("netd").propagate = True


def refusal(one: Any, other: Any) -> Exception:
    """The error of the one of two that was refused, the other being done."""
    (error,) = [outcome for outcome in (one, other) if isinstance(outcome, Exception)]
    return error
