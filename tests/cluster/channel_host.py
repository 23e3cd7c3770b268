"""A host's end of the control channel, run by the tests in a namespace: NAME ADDRESS OTHER ITS-ADDRESS.

Prints what it finds and hears, one JSON object a line; `put NAME` and `gone NAME` on stdin are announced.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

from netd.cluster.channel import Channel
from netd.cluster.model import EndpointRecord, HostRecord


def say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


async def main(name: str, address: str, other: str, there: str) -> None:
    me, peer = (
        HostRecord(name=n, id=n, advertise=a, version="", started=0.0) for n, a in ((name, address), (other, there))
    )

    async def heard(endpoint: EndpointRecord, gone: bool) -> None:
        say({"endpoint": endpoint.name, "gone": gone})

    channel = Channel(me, lambda: {name: me, other: peer}, heard)
    await channel.open()
    loop = asyncio.get_running_loop()

    def command() -> None:
        verb, _, endpoint = sys.stdin.readline().strip().partition(" ")
        record = EndpointRecord(id="1", network_id="2", name=endpoint, mac="", host=name, vtep=address)
        channel.announce(record, verb == "gone")

    loop.add_reader(sys.stdin, command)
    while True:
        path = await channel.check(peer)
        say({**dataclasses.asdict(path), "problem": path.problem(there), "either": channel.problem(other)})
        await asyncio.sleep(0.1)


asyncio.run(main(*sys.argv[1:5]))
