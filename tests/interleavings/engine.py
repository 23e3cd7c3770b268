"""Every pair at every point: the second operation begins at each await of the first.

A point is a step after which a task waits, counted from the moment the first operation begins until all is quiet
again: the awaits of what the operation set off (a process's end, a restart) are points too. At a point the second
operation goes as far as it can before anything else goes on; then they take turns. With `fails`, the call to a
fake at which the first operation waits ends with an error instead of a result.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from drivers.spec import DriverError
from kvstore.contract import StoreError
from netd.errors import NetdError
from tests.fakes.loop import ACTOR, HORIZON, NeverQuiet, where
from tests.fakes.world import World

FIRST, SECOND = "first", "second"


class Scene(Protocol):
    """A world in some state, and what must be true of it when everything is over."""

    world: World

    def complaints(self, outcomes: Sequence[Outcome[Any]], failed: Sequence[str]) -> list[str]:
        """What is wrong now that all is quiet; `failed` are the calls to fakes that were made to fail."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Scene)


@dataclass(frozen=True, slots=True)
class Operation(Generic[S]):
    """Something that happens; what it returns is its acknowledgement.

    `keeps` says what is wrong if an acknowledged one has had no effect; it is not asked when an operation named in
    `undone_by` took place too.
    """

    name: str
    run: Callable[[S], Coroutine[Any, Any, Any]]
    keeps: Callable[[S, Any], str | None] = lambda scene, value: None
    undone_by: frozenset[str] = frozenset()
    acknowledges: tuple[type[Exception], ...] = ()  # errors that promise as much as a result
    never: tuple[type[Exception], ...] = ()  # errors that it has no reason to raise
    asks: bool = True  # whether it is a request, which a daemon that still loads does not hear

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Outcome(Generic[S]):
    """What became of an operation."""

    operation: Operation[S]
    task: asyncio.Task[Any] | None
    killed: bool = False  # with the daemon that it ran in

    @property
    def ended(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.task is not None and self.ended and not self.task.cancelled() else None

    @property
    def acknowledged(self) -> bool:
        if self.task is None:
            return True
        return self.ended and (self.error is None or isinstance(self.error, self.operation.acknowledges))

    @property
    def value(self) -> Any:
        return None if self.task is None or self.error is not None else self.task.result()

    def __str__(self) -> str:
        if self.killed and not self.ended:
            return f"{self.operation}: killed"
        if not self.ended:
            return f"{self.operation}: waits" if self.task is not None else f"{self.operation}"
        return f"{self.operation}: {'done' if self.error is None else _told(self.error)}"


def kill_and_load(scene: Scene) -> Coroutine[Any, Any, None]:
    """The daemon is killed at once, and a new one begins to load."""
    return scene.world.kill_daemon().load()


@dataclass(frozen=True)
class Case(Generic[S]):
    """One interleaving. `point` 0 is before the first operation's first step."""

    state: str
    first: Operation[S]
    second: Operation[S] | None
    point: int
    fails: bool = False

    def __str__(self) -> str:
        error = "!" if self.fails else ""
        return f"{self.state}: {self.first} @{self.point}{error} {self.second or 'nothing'}"


@dataclass(slots=True)
class Failure(Generic[S]):
    """An interleaving after which something is wrong."""

    case: Case[S]
    at: str
    failed: list[str]
    outcomes: list[str]
    wrong: list[str]

    def __str__(self) -> str:
        error = f", where {self.failed[0]} fails" if self.failed else ""
        return "\n".join(
            [
                f"{self.case}",
                f"    the first waits at {self.at}{error}",
                *(f"    {outcome}" for outcome in self.outcomes),
                *(f"    WRONG: {text}" for text in self.wrong),
            ]
        )


class Play(Generic[S]):
    """One run of one case."""

    def __init__(self, scene: S, case: Case[S]) -> None:
        self.scene = scene
        self.case = case
        self.at = "its beginning"
        self.outcomes: list[Outcome[S]] = []
        self.trace: list[str] = []

    def begin(self, operation: Operation[S], actor: str) -> None:
        world, before = self.scene.world, self.scene.world.loop
        context = copy_context()
        context.run(ACTOR.set, actor)
        work = operation.run(self.scene)
        if world.loop is not before:
            for outcome in self.outcomes:
                outcome.killed = True
        self.outcomes.append(Outcome(operation, world.loop.create_task(work, name=actor, context=context)))

    def advance(self) -> bool:
        """Go on to the next point; False once all is quiet."""
        loop = self.scene.world.loop
        until = loop.time() + HORIZON
        while True:
            handle = loop.step()
            if handle is None:
                if not loop.pass_time(until):
                    return False
            elif handle.waits:
                self.at = where(handle.task) if handle.task is not None else "a thread's work"
                return True

    def play(self) -> bool:
        """Run it to the end; False if the first has no such point, or no call there that could fail."""
        self.begin(self.case.first, FIRST)
        for _ in range(self.case.point):
            calls = set(self.scene.world.calls.waiting)
            if not self.advance():
                return False
        if self.case.fails:
            new = [call for call in self.scene.world.calls.waiting if call not in calls]
            if not new:
                return False
            new[-1].fails = True
        if self.case.second is not None:
            if self.case.second.asks and not self.scene.world.daemon.loaded:
                return False
            self.begin(self.case.second, SECOND)
        self.scene.world.loop.first_goes = SECOND
        self.scene.world.loop.settle()
        return True

    def wrong(self) -> list[str]:
        """What is wrong now that all is quiet."""
        failed = list(self.scene.world.calls.failed)
        wrong = [text for outcome in self.outcomes for text in self._wrong_with(outcome, failed)]
        return wrong + self.scene.complaints(self.outcomes, failed)

    def _wrong_with(self, outcome: Outcome[S], failed: Sequence[str]) -> Iterator[str]:
        others = {o.operation.name for o in self.outcomes if o is not outcome}
        if not outcome.ended:
            if not outcome.killed:
                yield f"{outcome.operation} waits for ever at {where(outcome.task) if outcome.task else '?'}"
            return
        error = outcome.error
        if error is not None and not _expected(error, failed):
            yield f"{outcome.operation} raised {_told(error)}"
        elif isinstance(error, outcome.operation.never) and not failed:
            yield f"{outcome.operation} gave up with {_told(error)}"
        if outcome.acknowledged and not others & outcome.operation.undone_by:
            complaint = outcome.operation.keeps(self.scene, outcome.value)
            if complaint is not None:
                yield f"{outcome.operation} was acknowledged, but {complaint}"


def _expected(error: BaseException, failed: Sequence[str]) -> bool:
    return isinstance(error, NetdError) or (bool(failed) and isinstance(error, (DriverError, StoreError)))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


@dataclass(slots=True)
class Explored(Generic[S]):
    """How many interleavings there were, and which of them went wrong."""

    count: int = 0
    failures: list[Failure[S]] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"{len(self.failures)} of {self.count} interleavings went wrong", *map(str, self.failures)])


def play(make: Callable[[], S], case: Case[S], explored: Explored[S]) -> bool:
    """Play one case and note what is wrong; False if there is no such point."""
    with _quiet_log() as errors:
        scene = make()
        run = Play(scene, case)
        try:
            try:
                if not run.play():
                    return False
                wrong = run.wrong()
            except NeverQuiet as error:
                wrong = [str(error)]
            if not scene.world.calls.failed:
                wrong += errors
            wrong += [f"asyncio: {e.get('message')} {e.get('exception', '')}" for e in scene.world.loop.errors]
            explored.count += 1
            if wrong:
                outcomes = [str(outcome) for outcome in run.outcomes]
                explored.failures.append(Failure(case, run.at, list(scene.world.calls.failed), outcomes, wrong))
        finally:
            scene.close()
    return True


def explore(
    state: str,
    make: Callable[[], S],
    first: Operation[S],
    seconds: Iterable[Operation[S]],
) -> Explored[S]:
    """All interleavings of `first` with each of `seconds`, without errors and with one."""
    explored: Explored[S] = Explored()
    seconds = list(seconds)
    with _no_garbage_collection():
        for point in range(_points(make, first) + 1):
            for second in seconds:
                play(make, Case(state, first, second, point), explored)
            if play(make, Case(state, first, None, point, fails=True), explored):
                for second in seconds:
                    play(make, Case(state, first, second, point, fails=True), explored)
    return explored


def _points(make: Callable[[], S], first: Operation[S]) -> int:
    """How many points the first operation has when nothing comes in between."""
    scene = make()
    run = Play(scene, Case("", first, None, 0))
    try:
        run.begin(first, FIRST)
        points = 0
        while run.advance():
            points += 1
        return points
    finally:
        scene.close()


@contextmanager
def _quiet_log() -> Iterator[list[str]]:
    """The errors that netd logs are part of what is wrong, and nothing is printed."""
    errors: list[str] = []
    handler = _Errors(errors)
    root = logging.getLogger("netd")
    before, root.propagate = root.propagate, False
    root.addHandler(handler)
    try:
        yield errors
    finally:
        root.removeHandler(handler)
        root.propagate = before


class _Errors(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(f"logged: {record.getMessage()}")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Thousands of small worlds: collected when all is done, instead of again and again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
