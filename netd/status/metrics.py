"""What there is to count, as Prometheus reads it: `GET /netd/metrics`, and `/metrics` at `--metrics-addr`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netd import __version__

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from dns.client import ResolverState
    from drivers.kernel import Kernel
    from netd.names.resolver import Names
    from netd.networks.manager import NetworkManager
    from netd.overlays.hosts import HostsView
    from netd.status.system import System

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counts of one daemon, taken when they are asked for."""

    def __init__(
        self, system: System, networks: NetworkManager, names: Names, kernel: Kernel, hosts: HostsView
    ) -> None:
        self._system = system
        self._networks = networks
        self._names = names
        self._kernel = kernel
        self._hosts = hosts

    async def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        from prometheus_client import generate_latest
        from prometheus_client.registry import Collector

        found = list(self._families(await self._names.state()))

        class Now(Collector):
            def collect(self) -> list[Metric]:
                return found

        return generate_latest(Now())

    def _families(self, names: ResolverState) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily("netd", "This daemon.", {"version": __version__})
        containers = GaugeMetricFamily("netd_containers", "Containers by their state.", labels=["state"])
        for state, count in self._system.containers().items():
            containers.add_metric([state], count)
        yield containers
        networks = GaugeMetricFamily("netd_networks", "Networks by driver and scope.", labels=["driver", "scope"])
        kinds = Counter((live.record.driver, live.record.scope) for live in self._networks.live.values())
        for kind, count in kinds.items():
            networks.add_metric(kind, count)
        yield networks
        questions = CounterMetricFamily(
            "netd_dns_questions", "Questions that containers asked, by who dealt with them.", labels=["by"]
        )
        questions.add_metric(["kernel"], names.kernel.answered)
        questions.add_metric(["netd-dns"], names.queries - names.kernel.answered)
        yield questions
        told = "Objects in the kernel that somebody else changed and that were put right."
        yield CounterMetricFamily("netd_repairs", told, self._kernel.repairs)
        if problems := self._hosts.problems():
            hosts = GaugeMetricFamily("netd_cluster_hosts", "Hosts of the cluster by state.", labels=["state"])
            states = Counter("problem" if problem else "ok" for problem in problems.values())
            for state in ("ok", "problem"):
                hosts.add_metric([state], states[state])
            yield hosts
