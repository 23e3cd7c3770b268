"""Why a question gets the answer it gets: the rules of the resolver, tried one by one and told."""

from __future__ import annotations

from collections.abc import Iterator

from dnslib import QTYPE, DNSRecord

from dns import answer, wire
from dns.control import Explanation, Step
from dns.race import Route
from dns.sandbox import Sandbox
from dns.tables import Network


def explain(sandbox: Sandbox, name: bytes, kind: int) -> Explanation:
    """Answer a question without asking anybody, and tell how."""
    query = wire.Query(0, wire.RD, name, name.lower(), kind, wire.IN, None)
    local = answer.lookup(sandbox.shared.tables, sandbox.ready.scope, query)
    steps = [*_network_steps(sandbox, query)]
    records: tuple[str, ...] = ()
    if local is not None and local.alias is None:
        message = answer.render(query, local, wire.MAX_SIZE, local.records)
        records = tuple(str(rr) for rr in DNSRecord.parse(message).rr)
        outcome = (
            f"{len(records)} record{'s' * (len(records) > 1)}"
            if records
            else "the name has no record of this type (NODATA)"
        )
        steps.append(Step(local.rule, outcome, answers=True))
        source = "local"
    elif (withheld := sandbox.withheld(query, wire.MAX_SIZE)) is not None:
        rcode = "NXDOMAIN" if withheld[3] & 15 == wire.NXDOMAIN else "an empty answer"
        steps.append(Step("unknown names that are not forwarded", rcode, answers=True))
        source = "local"
    else:
        steps += _upstream_steps(sandbox.route_for(query.folded))
        source = "upstream" if steps[-1].answers else "none"
    return Explanation(wire.show_name(name), QTYPE.get(kind), source, tuple(steps), records)


def _network_steps(sandbox: Sandbox, query: wire.Query) -> Iterator[Step]:
    tables = sandbox.shared.tables
    for network_id in sandbox.view.networks:
        network = tables.networks.get(network_id)
        if network is None:
            yield Step(f"network {network_id[:12]!a}", "the resolver has no table of it")
        else:
            yield _network_step(sandbox, network, query)


def _network_step(sandbox: Sandbox, network: Network, query: wire.Query) -> Step:
    rule = f"network {network.name!a}"
    if query.type == wire.PTR:
        known = network.pointers(query.folded)
        return Step(rule, f"address of {wire.show_name(known[0])}" if known else "no endpoint has this address")
    links = sandbox.ready.scope.links.get(network.id, {})
    if (target := links.get(query.folded)) is not None:
        found = network.find(target)
        return Step(rule, f"a link to {wire.show_name(target)}" + ("" if found else ", which is not there"))
    if (found := network.find(query.folded)) is not None:
        return Step(rule, found.rule)
    for first, rest in wire.suffixes(query.folded):
        if rest == network.folded_name:
            found = network.find(first)
            return Step(rule, f"{found.rule}, with the network's name" if found else "no such name on it")
    return Step(rule, "no such name")


def _upstream_steps(route: Route) -> list[Step]:
    if not route.servers:
        return [Step("upstreams", "none that may be used: SERVFAIL")]
    order = route.order()
    return [
        Step(f"upstream {server}", "silent lately, asked last" if route.is_down(server) else "asked", answers=not i)
        for i, server in enumerate(order)
    ]
