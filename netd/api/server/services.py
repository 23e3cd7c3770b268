"""What the API stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netd.containers.manager import ContainerManager
    from netd.containers.streams import ContainerStreams
    from netd.core.events import EventBus
    from netd.images.store import ImageStore
    from netd.names.questions import Naming
    from netd.networks.manager import NetworkManager
    from netd.overlays.hosts import HostsView
    from netd.sandboxes.attached import AttachedSandboxes
    from netd.status.metrics import Metrics
    from netd.status.system import System


@dataclass(frozen=True, slots=True)
class Services:
    """The managers of one daemon."""

    networks: NetworkManager
    containers: ContainerManager
    images: ImageStore
    events: EventBus
    system: System
    streams: ContainerStreams
    attached: AttachedSandboxes
    naming: Naming
    metrics: Metrics
    hosts: HostsView
