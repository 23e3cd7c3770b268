"""Every call to a fake passes here: one await before it takes effect, where it can be made to fail, and one after."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Call:
    """A call that has not taken effect yet."""

    name: str
    fails: bool = False


@dataclass(slots=True)
class Calls:
    """The calls under way, of all fakes of one machine."""

    waiting: list[Call] = field(default_factory=list)
    made: int = 0
    failed: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)  # the names of calls that fail each time


class Fake(Protocol):
    calls: Calls


S = TypeVar("S", bound=Fake)


@types.coroutine
def step() -> Generator[None, None, None]:
    """Let others go on, once."""
    yield


def stepped(
    error: type[Exception],
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """Make a method that takes effect at once into a call such as the real one: it takes time, and may fail."""

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
        name = method.__qualname__.replace("Fake", "")

        @functools.wraps(method)
        async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
            await before(self.calls, name, error)
            result = method(self, *args, **kwargs)
            await step()
            return result

        return call

    return decorate


async def before(calls: Calls, name: str, error: type[Exception]) -> None:
    """The await before a call takes effect; raises `error` if it was made to fail."""
    call = Call(name)
    calls.made += 1
    calls.waiting.append(call)
    try:
        await step()
    finally:
        calls.waiting.remove(call)
    if call.fails or name in calls.broken:
        calls.failed.append(name)
        raise error(f"{name} was made to fail")
