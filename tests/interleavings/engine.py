"""Every pair at every point: the second operation begins at each await of the first.

A point is a step after which a task waits, counted from the moment the first operation begins until all is quiet
again: the awaits of what the operation set off (a process's end, a restart) are points too. At a point the second
operation goes as far as it can before anything else goes on; then they take turns. With `fails`, the call to a
fake at which the first operation waits ends with an error instead of a result.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from drivers.spec import DriverError
from kvstore.contract import StoreError
from netd.core.errors import NetdError
from tests.fakes.calls import Call
from tests.fakes.loop import ACTOR, NeverQuiet, lock_awaited, where
from tests.fakes.world import World

FIRST, SECOND = "first", "second"


class Scene(Protocol):
    """A world in some state, and what must be true of it when everything is over."""

    world: World
    may_complain: bool  # in the log, of what others have done
    horizon: float  # seconds that may pass until all is quiet

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
    refuses: tuple[type[Exception], ...] = ()  # errors with which it may be refused, beside netd's own
    asks: bool = True  # whether it is a request, which a daemon that still loads does not hear
    lasts: bool = False  # whether the time that passes after its end belongs to it

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Outcome(Generic[S]):
    """What became of an operation."""

    operation: Operation[S]
    task: asyncio.Task[Any]
    killed: bool = False  # with the daemon that it ran in

    @property
    def ended(self) -> bool:
        return self.task.done()

    @property
    def error(self) -> BaseException | None:
        return self.task.exception() if self.ended else None

    @property
    def acknowledged(self) -> bool:
        return self.ended and (self.error is None or isinstance(self.error, self.operation.acknowledges))

    @property
    def value(self) -> Any:
        return None if self.error is not None else self.task.result()

    def __str__(self) -> str:
        if not self.ended:
            return f"{self.operation}: {'killed' if self.killed else 'waits'}"
        return f"{self.operation}: {'done' if self.error is None else _told(self.error)}"


def kill_and_load(scene: Scene) -> Coroutine[Any, Any, None]:
    """The daemon is killed at once, and a new one begins to load."""
    return scene.world.kill_daemon().load()


class State(Protocol[S]):
    """How things are when two operations meet, and which of them can be the first and which the second."""

    @property
    def name(self) -> str: ...

    def make(self, root: Path) -> S:
        """A new world in this state, with its files below `root`."""

    def firsts(self) -> list[Operation[S]]: ...

    def seconds(self) -> list[Operation[S]]: ...


@dataclass(frozen=True)
class Case(Generic[S]):
    """One interleaving. `point` 0 is before the first operation's first step."""

    state: State[S]
    first: Operation[S]
    second: Operation[S] | None
    point: int
    fails: bool = False

    def __str__(self) -> str:
        error = "!" if self.fails else ""
        return f"{self.state.name}: {self.first} @{self.point}{error} {self.second or 'nothing'}"


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


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of a point: where the first waits, whether in a call that may fail, and who is listening."""

    at: str
    calls: bool
    loaded: bool


class Play(Generic[S]):
    """One run of one case."""

    def __init__(self, scene: S, case: Case[S]) -> None:
        self.scene = scene
        self.case = case
        self.at = "its beginning"
        self.outcomes: list[Outcome[S]] = []
        self.point = case.point  # at which the second took place
        self.refused: set[int] = set()  # points at which it was refused
        self.waited: list[tuple[int, object]] = []  # points at which it waited for a lock
        self._called: list[Call] = []  # at the latest point

    # ---- on the way -------------------------------------------------------------------------------------

    def points(self) -> list[Point]:
        """Where the first operation waits when nothing comes in between; the last one is when all is over."""
        self._begin(self.case.first, FIRST)
        found = [self._point()]
        while self._advance():
            found.append(self._point())
        return [*found, self._point()]

    def play(self, last: int = 0) -> None:
        """Run it to the end.

        Up to the point `last`, a second that is refused at once is tried again at the next point, for it has changed
        nothing. So is one that waits for a lock at once: since when it waits is of no account, so it is enough to
        play the first and the last of such points (`stand_ins`).
        """
        self._begin(self.case.first, FIRST)
        for _ in range(self.case.point):
            self._advance()
        if self.case.fails:
            self._called[-1].fails = True
        if self.case.second is not None:
            while self._begin_second(self.case.second) and self.point < last:
                self._withdraw()
                self._advance()
                self.point += 1
        self.scene.world.loop.first_goes = SECOND
        self.scene.world.loop.settle(self.scene.horizon)

    def stand_ins(self) -> list[int]:
        """The points to play for all those at which the second waited for the same lock behind as many others."""
        groups = [[n for n, _ in group] for _, group in itertools.groupby(self.waited, key=lambda waited: waited[1])]
        return [number for group in groups for number in sorted({group[0], group[-1]})]

    def _begin_second(self, second: Operation[S]) -> bool:
        """Take its first step; whether that came to nothing."""
        loop = self.scene.world.loop
        outcome = self._begin(second, SECOND)
        if self.scene.world.loop is not loop:
            return False
        self._step(SECOND)
        if outcome.ended:
            return outcome.error is not None and not outcome.acknowledged
        return lock_awaited(outcome.task) is not None

    def _withdraw(self) -> None:
        task = self.outcomes.pop().task
        if task.done():
            self.refused.add(self.point)
            return
        self.waited.append((self.point, lock_awaited(task)))
        task.cancel()
        while not task.done():
            self._step(SECOND)

    def _step(self, actor: str) -> None:
        loop = self.scene.world.loop
        loop.first_goes = actor
        loop.step()
        loop.first_goes = ""

    def _begin(self, operation: Operation[S], actor: str) -> Outcome[S]:
        world, before = self.scene.world, self.scene.world.loop
        context = copy_context()
        context.run(ACTOR.set, actor)
        work = operation.run(self.scene)
        if world.loop is not before:
            for earlier in self.outcomes:
                earlier.killed = True
        outcome = Outcome(operation, world.loop.create_task(work, name=actor, context=context))
        self.outcomes.append(outcome)
        return outcome

    def _advance(self) -> bool:
        """Go on to the next point; False once all is quiet. Time passes only while the first waits for that."""
        world = self.scene.world
        until = world.loop.time() + self.scene.horizon
        calls = set(world.calls.waiting)
        first = self.outcomes[0]
        while True:
            handle = world.loop.step()
            if handle is not None and handle.waits:
                self.at = where(handle.task) if handle.task is not None else "a thread's work"
                self._called = [call for call in world.calls.waiting if call not in calls]
                return True
            if handle is None and ((first.ended and not first.operation.lasts) or not world.loop.pass_time(until)):
                self.at, self._called = "its end", []
                return False

    def _point(self) -> Point:
        return Point(self.at, bool(self._called), self.scene.world.daemon.loaded)

    # ---- afterwards -------------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """What is wrong now that all is quiet."""
        failed = list(self.scene.world.calls.failed)
        wrong = [text for outcome in self.outcomes for text in self._wrong_with(outcome, failed)]
        return wrong + self.scene.complaints(self.outcomes, failed)

    def _wrong_with(self, outcome: Outcome[S], failed: Sequence[str]) -> Iterator[str]:
        others = {o.operation.name for o in self.outcomes if o is not outcome}
        if not outcome.ended:
            if not outcome.killed:
                yield f"{outcome.operation} waits for ever at {where(outcome.task)}"
            return
        error = outcome.error
        if error is not None and not (isinstance(error, outcome.operation.refuses) or _expected(error, failed)):
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


def explore(state: State[S], first: Operation[S], root: Path) -> Explored[S]:
    """All interleavings of `first` with each second operation, without errors and with one."""
    explored: Explored[S] = Explored()
    with _no_garbage_collection():
        points = _points(state, first, root)
        for number, point in enumerate(points):
            if point.calls:
                play(Case(state, first, None, number, fails=True), root, explored)
        for second in state.seconds():
            heard = next((n for n, point in enumerate(points) if point.loaded or not second.asks), len(points))
            refused = _sweep(Case(state, first, second, heard), len(points) - 1, root, explored)
            for number, point in enumerate(points[heard:], heard):
                if not point.calls:
                    continue
                if number in refused:
                    explored.count += 1  # as if there were no second, which was played above
                else:
                    play(Case(state, first, second, number, fails=True), root, explored)
    return explored


def _sweep(case: Case[S], last: int, root: Path, explored: Explored[S]) -> set[int]:
    """Play a case at its point and at all after it; those at which the second is refused."""
    refused: set[int] = set()
    number = case.point
    while number <= last:
        run = play(replace(case, point=number), root, explored, last)
        for stand_in in run.stand_ins():
            play(replace(case, point=stand_in), root, explored)
        explored.count += len(run.refused) + len(run.waited) - len(run.stand_ins())
        refused |= run.refused
        number = run.point + 1
    return refused


def _points(state: State[S], first: Operation[S], root: Path) -> list[Point]:
    with _quiet_log(), closing(state.make(root)) as scene:
        return Play(scene, Case(state, first, None, 0)).points()


def play(case: Case[S], root: Path, explored: Explored[S], last: int = 0) -> Play[S]:
    """Play one case and note what is wrong; up to the point `last` a second that comes to nothing is tried again."""
    with _quiet_log() as errors, closing(case.state.make(root)) as scene:
        run = Play(scene, case)
        try:
            run.play(last)
            wrong = run.wrong()
        except NeverQuiet as error:
            wrong = [str(error)]
        failed = list(scene.world.calls.failed)
        if not failed and not scene.may_complain:
            wrong += errors
        wrong += [f"asyncio: {c['message']} {c.get('exception')}" for c in scene.world.loop.errors]
        if wrong:
            told = [str(outcome) for outcome in run.outcomes]
            explored.failures.append(Failure(replace(case, point=run.point), run.at, failed, told, wrong))
        explored.count += 1
    return run


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
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
