"""What happens to networks, containers and images, as Docker tells it (section 2M)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from netd.core.filters import Filters

log = logging.getLogger(__name__)

Event = dict[str, Any]

_HISTORY = 1024  # events kept for `since`; Docker keeps 256
_BACKLOG = 1024  # events a subscriber may lag behind
_KNOWN = (
    *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"),
    *("service", "type", "volume"),
)
_OBJECTS = ("container", "network", "volume", "plugin", "daemon")


class EventBus:
    """Hands every event to every subscriber, and remembers the last ones."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=_HISTORY)
        self._subscriptions: set[Subscription] = set()

    def publish(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Tell that `action` happened to the `type` (container, network, image ...) with this id."""
        event = _event(type, action, id, dict(attributes), time.time_ns())
        self._history.append(event)
        for subscription in list(self._subscriptions):
            subscription.offer(event)

    def subscribe(self, filters: Filters, since: float | None, until: float | None) -> Subscription:
        """The events that pass from now on, after those remembered since `since`; ends at `until` (both epoch
        seconds). Close it, or use it as a context manager."""
        filters.check(*_KNOWN)
        subscription = Subscription(filters, until, self._subscriptions.discard)
        if since is not None:
            for event in self._history:
                if event["timeNano"] >= since * 1e9:
                    subscription.offer(event)
        self._subscriptions.add(subscription)
        return subscription


class Subscription:
    """One reader's events, in order; it is dropped when it lags too far behind."""

    def __init__(self, filters: Filters, until: float | None, forget: Any) -> None:
        self._filters = filters
        self._until = until
        self._forget = forget
        self._backlog: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._ended = False

    def offer(self, event: Event) -> None:
        if self._ended or not passes(event, self._filters):
            return
        if self._until is not None and event["timeNano"] > self._until * 1e9:
            return
        if len(self._backlog) >= _BACKLOG:
            log.warning("a reader of events lags %d events behind: its stream ends here", _BACKLOG)
            self.close()
            return
        self._backlog.append(event)
        self._wake.set()

    def close(self) -> None:
        """Nothing is added any more; what is in the backlog can still be read."""
        self._ended = True
        self._forget(self)
        self._wake.set()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._backlog:
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            try:
                async with asyncio.timeout(self._remaining()):
                    await self._wake.wait()
            except TimeoutError:
                self.close()
        return self._backlog.popleft()

    def _remaining(self) -> float | None:
        return None if self._until is None else self._until - time.time()


def passes(event: Event, filters: Filters) -> bool:
    """Whether an event passes the filters of GET /events."""
    if not filters.values:
        return True
    kind, actor = event["Type"], event["Actor"]
    name = actor["Attributes"].get("name", "")
    for key in _OBJECTS:
        if filters.get(key) and (kind != key or not filters.prefix(key, (actor["ID"], name))):
            return False
    return (
        filters.exact("type", kind)
        and filters.exact("scope", event["scope"])
        and _has_action(event["Action"], filters)
        and _has_image(event, filters)
        and filters.labels(actor["Attributes"])
        and not any(filters.get(key) for key in ("config", "node", "secret", "service"))
    )


def _has_action(action: str, filters: Filters) -> bool:
    """`exec_create: ls` is meant by `exec_create` too."""
    return filters.exact("event", action) or filters.exact("event", action.partition(":")[0])


def _has_image(event: Event, filters: Filters) -> bool:
    actor = event["Actor"]
    image = actor["Attributes"].get("name" if event["Type"] == "image" else "image", "")
    return not filters.get("image") or bool({actor["ID"], image, _without_tag(image)} & filters.get("image"))


def _without_tag(image: str) -> str:
    head, colon, tag = image.rpartition(":")
    return head if colon and "/" not in tag else image


def _event(type: str, action: str, id: str, attributes: dict[str, str], nanoseconds: int) -> Event:
    old: Event = {}
    if type in ("container", "image"):
        old = {"status": action, "id": id}
        if image := attributes.get("image"):
            old["from"] = image
    return {
        **old,
        "Type": type,
        "Action": action,
        "Actor": {"ID": id, "Attributes": attributes},
        "scope": "local",
        "time": nanoseconds // 1_000_000_000,
        "timeNano": nanoseconds,
    }
