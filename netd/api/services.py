"""What the API stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netd.container_streams import ContainerStreams
    from netd.containers import ContainerManager
    from netd.events import EventBus
    from netd.foreign import ForeignSandboxes
    from netd.images import ImageStore
    from netd.metrics import Metrics
    from netd.naming import Naming
    from netd.networks import NetworkManager
    from netd.system import System


@dataclass(frozen=True, slots=True)
class Services:
    """The managers of one daemon."""

    networks: NetworkManager
    containers: ContainerManager
    images: ImageStore
    events: EventBus
    system: System
    streams: ContainerStreams
    foreign: ForeignSandboxes
    naming: Naming
    metrics: Metrics
