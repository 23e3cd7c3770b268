"""An event loop that a test steps by hand: nothing happens between two steps, and time passes only when told to.

It has what coroutines, locks, timers and `asyncio.to_thread` need, and no sockets or processes. Two runs that
make the same steps are the same run.
"""

from __future__ import annotations

import asyncio
import heapq
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

# whose work a step is: tasks hand it on to the tasks that they start
ACTOR: ContextVar[str] = ContextVar("actor", default="")

HORIZON = 90.0  # seconds; longer than any back-off or patience of netd
_PATIENCE = 20_000  # steps until it is plain that something never comes to rest


class NeverQuiet(AssertionError):
    """Something goes round and round."""


class Handle:
    """One callback that is due, now or at a time."""

    __slots__ = ("_args", "_callback", "_cancelled", "context", "due")  # one is made for each step

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, due: float):
        self._callback = callback
        self._args = args
        self._cancelled = False
        self.context = copy_context() if context is None else context
        self.due = due

    def __lt__(self, other: Handle) -> bool:
        return self.due < other.due

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that this step carries on, if it does."""
        owner = getattr(self._callback, "__self__", None)
        return owner if isinstance(owner, asyncio.Task) else None

    @property
    def waits(self) -> bool:
        """Whether it ended at an await: of a task, or of a thread's work."""
        task = self.task
        return self._callback is _in_thread if task is None else not task.done()

    @property
    def actor(self) -> str:
        return self.context.get(ACTOR, "")

    def run(self) -> None:
        self.context.run(self._callback, *self._args)


class Loop(asyncio.AbstractEventLoop):
    """See the module. `with Loop() as loop:` makes it the running one."""

    def __init__(self, now: float = 0.0) -> None:
        self.errors: list[dict[str, Any]] = []  # what asyncio had to complain about
        self.first_goes = ""  # an actor whose steps are taken before all others
        self._now = now
        self._ready: deque[Handle] = deque()
        self._timers: list[Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}  # those that have not ended, in the order of their start

    def __enter__(self) -> Loop:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain()
        self.leave()

    def enter(self) -> None:
        """Be the running loop of this thread."""
        asyncio._set_running_loop(self)

    @staticmethod
    def leave() -> None:
        asyncio._set_running_loop(None)

    # ---- stepping ---------------------------------------------------------------------------------------

    def step(self) -> Handle | None:
        """Take the next step; None if nothing can go on before time passes."""
        while self._ready:
            handle = self._next()
            if not handle.cancelled():
                handle.run()
                task = handle.task
                if task is not None and task.done():
                    self.tasks.pop(task, None)
                return handle
        return None

    def _next(self) -> Handle:
        if self.first_goes:
            for index, handle in enumerate(self._ready):
                if handle.actor == self.first_goes:
                    del self._ready[index]
                    return handle
        return self._ready.popleft()

    def pass_time(self, until: float) -> bool:
        """Let the time of the next timer come, if that is not after `until`."""
        while self._timers and self._timers[0].cancelled():
            heapq.heappop(self._timers)
        if not self._timers or self._timers[0].due > until:
            return False
        self._now = max(self._now, self._timers[0].due)
        while self._timers and self._timers[0].due <= self._now:
            self._ready.append(heapq.heappop(self._timers))
        return True

    def settle(self, seconds: float = HORIZON) -> None:
        """Go on until everything is quiet and will be for `seconds`; 0 lets no time pass."""
        until = self._now + seconds
        for _ in range(_PATIENCE):
            if self.step() is None and not self.pass_time(until):
                return
        raise NeverQuiet(f"not quiet after {_PATIENCE} steps: {self._busy()}")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, all that it started included."""
        task = self.create_task(work)
        for _ in range(_PATIENCE):
            if task.done():
                return task.result()
            if self.step() is None and not self.pass_time(self._now + HORIZON):
                break
        raise NeverQuiet(f"{task.get_coro()} does not end: {self._busy()}")

    def drain(self) -> None:
        """End what is still under way, as at the end of a program."""
        for _ in range(20):
            if not self.tasks:
                return
            for task in self.tasks:
                task.cancel()
            for _ in range(_PATIENCE):
                if self.step() is None:
                    break

    def _busy(self) -> str:
        return ", ".join(where(task) for task in self.tasks)

    # ---- what asyncio asks of a loop --------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, context, self._now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, context, when)
        heapq.heappush(self._timers, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks[task] = None
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """A thread's work is one step, and what it returns is seen in a later one."""
        future = self.create_future()
        self.call_soon(_in_thread, future, func, args)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)


def _in_thread(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    # a thread that has begun goes on, whoever does not wait for it any more
    try:
        result = func(*args)
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


def where(task: asyncio.Task[Any]) -> str:
    """In which functions a suspended task waits: `remove > _remove > Records.delete`."""
    return " > ".join(inner.__qualname__.replace("<locals>.", "") for inner in _waiting(task)[-4:])


def lock_awaited(task: asyncio.Task[Any]) -> tuple[int, int] | None:
    """The lock that a suspended task waits for, if it does, and how many wait before it."""
    inner = _waiting(task)[-1:]
    if not inner or inner[0].cr_code is not asyncio.Lock.acquire.__code__:
        return None
    lock = inner[0].cr_frame.f_locals["self"]
    return id(lock), len(lock._waiters) - 1


def _waiting(task: asyncio.Task[Any]) -> list[Any]:
    """The coroutines that wait for each other, outermost first."""
    found: list[Any] = []
    inner: Any = task.get_coro()
    while isinstance(inner, types.CoroutineType):
        found.append(inner)
        inner = inner.cr_await
        if type(inner).__name__ == "async_generator_asend":  # `async with` of an asynccontextmanager
            generator = getattr(found[-1].cr_frame.f_locals.get("self"), "gen", None)
            inner = generator.ag_await if isinstance(generator, types.AsyncGeneratorType) else None
    return found
