"""Answers from the kernel: the same as the resolver's, proven before it runs, and there when nobody else is."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from dns import answer, bpf, control, wire
from dns import kernel as kernel_module
from dns import kernel_layout as layout
from dns.client import Resolver, View
from dns.service import Service
from dns.tables import Scope, Tables
from dns.views import member
from tests.dns.helpers import (
    Client,
    World,
    address,
    attach,
    end,
    fake_upstream,
    question,
    record,
    sandbox_sockets,
    upstream,
    world,
)
from tests.dns.test_handover import old_process

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
SOURCE = (ROOT / "dns" / "kernel.bpf.c").read_text()
BOUNDS = range(1, 1 + SOURCE.count("BOUND(") - 1)


def answered(dns_socket: Path, test: Callable[[World], Awaitable[None]]) -> None:
    """Run a test where questions are answered in the kernel; `dns_socket` of the other way is passed over."""

    async def run() -> None:
        async with world(dns_socket) as w:
            await test(w)

    asyncio.run(run())


@pytest.fixture(scope="module", params=["kernel"])
def dns_socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dns") / "kernel" / "dns.sock"


# ---- what the kernel proves -----------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, *BOUNDS])
def test_the_kernel_takes_the_program_and_refuses_it_without_any_one_of_its_bounds(bound: int, tmp_path: Path) -> None:
    assert f"BOUND({bound}," in SOURCE or not bound
    program = tmp_path / "kernel.bpf.o"
    subprocess.run([ROOT / "scripts" / "build-bpf", program, f"-DWITHOUT={bound}"], check=True)
    if not bound:
        bpf.load(program, kernel_module.PROGRAM, {}).close()
        return
    with pytest.raises(bpf.Unavailable, match="Permission denied"):
        bpf.load(program, kernel_module.PROGRAM, {})


# ---- the same answers -----------------------------------------------------------------------------------

NETWORKS = {
    "n1": ("shop", {"netd.dns.records": "old IN CNAME web; txt IN TXT hi; five 5 IN A 10.5.5.5; ten IN A 10.6.6.6"}),
    "n2": ("b.c", {"netd.dns.ttl": "77"}),
    "n3": ("c", {}),
    "n4": ("wild", {}),
}
RECORDS = {
    "n1": [
        record("e1", ("web", "www", "h1.example.org"), "10.0.0.2", "fd00::2"),
        record("e2", ("db", "www", "data.base"), "10.0.0.3"),
        record("e3", ("six",), "fd00::3"),
        record("e4", ("x" * 63 + ".y",), "10.0.0.4"),
        *(record(f"m{i}", (f"m{i}", "many"), f"10.0.1.{i}", f"fd00:1::{i}") for i in range(12)),
        *(record(f"t{i}", ("toomany",), f"10.0.2.{i}") for i in range(40)),
    ],
    "n2": [record("e5", ("a", "web", "only2"), "10.1.0.1", "fd00:2::1")],
    "n3": [record("e6", ("a.b",), "10.2.0.1")],
    "n4": [record("e7", ("*.app", "late"), "10.3.0.1")],
}
SANDBOXES: dict[str, tuple[tuple[str, ...], dict[str, dict[str, str]]]] = {
    "plain": (("n1",), {}),
    "wide": (("n2", "n3", "n1"), {}),
    "open": (("n4", "n1"), {}),
    "linked": (("n1", "n2"), {"n1": {"database": "DB", "web": "db", "gone": "nosuch"}, "n2": {"db": "only2"}}),
}
NAMES = [
    *("web", "www", "h1.example.org", "db", "data.base", "six", "x" * 63 + ".y", "m3", "many", "toomany", "nosuch"),
    *("old", "txt", "five", "ten", "a", "a.b", "a.b.c", "only2", "late", "x.app", "y.x.app", "database", "gone"),
    *("2.0.0.10.in-addr.arpa", "1.0.3.10.in-addr.arpa", "9.9.9.9.in-addr.arpa", "_80._tcp.web", "", "x" * 63),
    "2" + ".0" * 29 + ".d.f.ip6.arpa",
    *("web", "www", "h1.example.org", "db", "data.base", "six", "m3", "many", "ten", "database") * 5,
]
KINDS = [1, 1, 1, 28, 28, 12, 12, 5, 6, 16, 33, 255, 2, 41, 65, 0, 252]


async def fill(resolver: Resolver) -> None:
    for network, (name, options) in NETWORKS.items():
        await resolver.put_network(network, name, RECORDS[network], options)


class Questions:
    """Generated questions: names, cases, types, EDNS, odd flags, and then damage."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def name(self) -> bytes:
        rng = self.random
        name = rng.choice(NAMES)
        if name and rng.random() < 0.3:
            name += rng.choice((".shop", ".b.c", ".c", ".wild", ".nosuch"))
        if rng.random() < 0.4:
            name = "".join(rng.choice((c.upper(), c.lower())) for c in name)
        return wire.encode_name(name)

    def one(self, identity: int) -> bytes:
        rng = self.random
        flags = rng.choice((0x0100, 0x0000, 0x0110, 0x0120)) if rng.random() < 0.9 else rng.randrange(0x10000)
        message = self.name() + struct.pack("!HH", rng.choice(KINDS), rng.choice((*[1] * 18, 3, 255)))
        additionals = 0
        if rng.random() < 0.5:
            size, options = rng.choice((0, 512, 1232, 4096, 65535)), rng.choice((0, 0, 12, 5))
            version = rng.choice((0, 0, 0, 0, 1))
            opt = struct.pack("!BHHBBHH", 0, 41, size, 0, version, rng.choice((0, 0x8000)), options)
            message, additionals = message + opt + bytes(rng.randrange(256) for _ in range(options)), 1
        counts = [1, 0, 0, additionals]
        if rng.random() < 0.03:
            counts[rng.randrange(4)] = rng.randrange(3)
        if rng.random() < 0.1:
            message = self.damaged(message)
        return struct.pack("!HHHHHH", identity, flags, *counts) + message

    def damaged(self, message: bytes) -> bytes:
        rng = self.random
        broken = bytearray(message)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        return bytes(broken[: rng.randrange(1, len(broken) + 1)] if rng.random() < 0.3 else broken + b"\0" * 3)


def normal(reply: bytes) -> object:
    """A reply but for the order of its addresses; of one that is cut, not which ones were left."""
    if len(reply) < 17:
        return reply
    end_ = wire.name_end(reply, 12) + 4
    records, at = [], end_
    for rr in wire.records(reply, end_, wire.HEADER.unpack_from(reply)[3:]):
        records.append((rr.section, reply[at : rr.end]))
        at = rr.end
    if reply[2] & 2:
        return reply[:end_], len(records), at
    return reply[:end_], sorted(records), reply[at:]


def is_mute(message: bytes) -> bool:
    return bool(message[2] & 0x80) or message[4:6] == b"\0\0"


def replies(sock: socket.socket, messages: list[bytes]) -> dict[bytes, object]:
    """What comes back, by id."""
    for message in messages:
        sock.send(message)
    expected = {message[:2] for message in messages if not is_mute(message)}
    found = {}
    deadline = time.monotonic() + 10
    while expected - found.keys():
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        reply = sock.recv(65535)
        found[reply[:2]] = normal(reply)
    return found


def test_20_000_questions_get_the_same_answers_both_ways(dns_socket: Path, tmp_path: Path) -> None:
    """Each is asked of a sandbox where the kernel answers and of one that only knows the resolver."""
    generator = Questions(5)

    def compare(ours: Client, other: Client, what: str) -> None:
        with ours.connected() as kernel, other.connected() as user:
            for start in range(0, 5000, 40):
                batch = [generator.one(start + i) for i in range(40)]
                one, two = replies(kernel, batch), replies(user, batch)
                for message in batch:
                    assert one.get(message[:2]) == two.get(message[:2]), (what, message)

    async def test(w: World) -> None:
        async with world(tmp_path / "dns.sock") as plain:
            for each in (w, plain):
                await fill(each.resolver)
            for name, (networks, links) in SANDBOXES.items():
                pair = [await each.sandbox(name, *networks, links=links) for each in (w, plain)]
                await asyncio.to_thread(compare, *pair, name)
            kernel = (await w.resolver.state()).kernel
            assert min(kernel.answered, kernel.passed) > 3000

    answered(dns_socket, test)
    end(tmp_path / "dns.sock")
    end(dns_socket)


class Machine:
    """Runs the program on packets one by one (BPF_PROG_TEST_RUN), as sandbox 0; nothing is sent."""

    def __init__(self, loaded: bpf.Loaded) -> None:
        self._run = ctypes.CDLL("libbpf.so.1").bpf_prog_test_run_opts
        self._run.argtypes = (ctypes.c_int, ctypes.c_void_p)
        self._program = loaded.descriptor
        self._into, self._out = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(4096)
        # struct bpf_test_run_opts: its size, data in and out and their sizes, contexts and theirs, result, ...
        self._options = ctypes.create_string_buffer(80)
        head = (80, ctypes.addressof(self._into), ctypes.addressof(self._out))
        struct.pack_into("=QQQ", self._options, 0, *head)

    def run(self, packet: bytes) -> tuple[int, bytes]:
        """What the program says, and the packet that it leaves."""
        ctypes.memmove(self._into, packet, len(packet))
        struct.pack_into("=II", self._options, 24, len(packet), 4096)
        assert self._run(self._program, self._options) == 0
        length, result = struct.unpack_from("=I", self._options, 28) + struct.unpack_from("=i", self._options, 56)
        return result, self._out.raw[:length]


def datagram(message: bytes) -> bytes:
    """A question as it leaves the container, headers included."""
    udp = struct.pack("!HHHH", 40000, 53, 8 + len(message), 0)
    ip = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(message), 7, 0x4000, 64, 17, 0, CLIENT, RESOLVER))
    ip[10:12] = (~ones_sum(ip) & 0xFFFF).to_bytes(2)
    return bytes(12) + b"\x08\0" + bytes(ip) + udp + message


def ones_sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


CLIENT, RESOLVER = bytes((127, 0, 0, 1)), bytes((127, 0, 0, 11))
PACKETS = int(os.environ.get("NETD_TEST_PACKETS", "100_000"))


@pytest.fixture
def tables() -> Iterator[Tables]:
    """The resolver's tables of all networks."""
    loop = asyncio.new_event_loop()
    service = Service(loop)
    for network, (name, options) in NETWORKS.items():
        members = tuple(member(each) for each in RECORDS[network])
        service.put_network(control.PutNetwork(network, name, members, options))
    yield service.tables
    service.close()
    loop.close()


def check(packet: bytes, left: bytes, expected: Callable[[bytes], object]) -> bool:
    """A packet is left alone but for its port, or is what the resolver would answer; whether it is an answer."""
    if len(packet) >= 54 and left[26:38] == packet[30:34] + packet[26:30] + packet[36:38] + packet[34:36]:
        assert ones_sum(left[14:34]) in (ones_sum(packet[14:34]), 0xFFFF)
        assert int.from_bytes(left[16:18]) == len(left) - 14 and int.from_bytes(left[38:40]) == len(left) - 34
        assert left[40:42] == b"\0\0" and normal(left[42:]) == expected(packet[42:])
        return True
    transport = 14 + 4 * (packet[14] & 15)
    changed = [at for at in range(len(packet)) if left[at] != packet[at]]
    assert len(left) == len(packet) and all(transport <= at < transport + 20 for at in changed)
    return False


def test_random_packets_get_no_wrong_answer(tables: Tables) -> None:
    """NETD_TEST_PACKETS says how many."""
    rng = random.Random(6)
    kernel = kernel_module.Kernel.open(tables, (0, rng.getrandbits(60)))
    scope = Scope(SANDBOXES["wide"][0])
    for network in tables.networks.values():
        kernel.put_network(network)
    kernel.put_sandbox(control.SandboxView("s", "s", scope.networks), scope, (5301, 5302))
    entries = kernel._loaded.maps["netd_sandboxes"]
    entries.put(bytes(4), entries.get(layout.NUMBER.pack(1)) or b"")
    machine, generator = Machine(kernel._loaded), Questions(7)
    seeds = [datagram(generator.one(i)) for i in range(2000)]

    def expected(message: bytes) -> object:
        query = wire.parse_query(message)
        local = answer.lookup(tables, scope, query)
        assert local is not None and local.alias is None
        return normal(answer.render(query, local, wire.reply_limit(query), local.records))

    answers = 0
    for _ in range(PACKETS):
        packet = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(5)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        if rng.random() < 0.05:
            packet = packet[: rng.randrange(34, len(packet) + 1)]
        result, left = machine.run(bytes(packet))
        assert result == -1  # TC_ACT_UNSPEC: it goes on
        answers += check(bytes(packet), left, expected)
    assert answers > PACKETS / 50
    kernel.let_go()


# ---- when nobody else is there --------------------------------------------------------------------------


def in_kernel(test: Callable[[Path, Path], Awaitable[None]], folder: Path) -> None:
    """Run a test with a control socket where questions are answered in the kernel, and a file of questions."""
    questions = folder / "questions"
    questions.write_text("web A\nWEB.net1 A\ndb A\n")
    asyncio.run(test(folder / "dns.sock", questions))


async def connected(path: Path) -> World:
    found = World(await Resolver.connect(path, kernel="on"))
    if not found.in_kernel:
        pytest.skip(found.resolver.kernel.reason)
    return found


async def load(client: Client, questions: Path, seconds: float) -> asyncio.subprocess.Process:
    words = client.dnsperf("-d", questions, "-l", seconds, "-Q", "3000", "-t", "1")
    return await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)


async def nothing_was_lost(running: asyncio.subprocess.Process) -> None:
    said = (await running.communicate())[0].decode()
    assert "Queries lost:         0 " in said and "(100.00%)" in said, said


MEMBERS = [record("e1", ("web",), "10.0.0.2"), record("e2", ("db",), "10.0.0.3")]


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_known_names_are_answered_while_the_resolver_is_dead_and_the_next_one_adopts_them(tmp_path: Path) -> None:
    async def test(path: Path, questions: Path) -> None:
        w = await connected(path)
        await w.resolver.put_network("n1", "net1", MEMBERS)
        client = await w.sandbox("s1")
        await w.sandbox("s2")
        pid = (await w.resolver.state()).pid
        running = await load(client, questions, 2)
        await w.resolver.close()
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)
        assert await client.addresses("web") == ["10.0.0.2"]
        with pytest.raises(TimeoutError):
            await client.exchange(bytes(question("nosuch").pack()), timeout=0.2)
        again = await connected(path)
        state = await again.resolver.state()
        assert (state.sandboxes, state.adopted, state.networks) == ({}, {"s1", "s2"}, {"n1"})
        # what the new process is told holds for the sandbox from now on, though nothing was attached again
        await again.resolver.put_network("n1", "net1", [*MEMBERS, record("e3", ("new",), "10.0.0.4")])
        assert await client.addresses("new") == ["10.0.0.4"]
        await again.resolver.leave("n1", "e3")
        with pytest.raises(TimeoutError):
            await client.exchange(bytes(question("new").pack()), timeout=0.2)
        async with fake_upstream(address("192.0.2.7")) as server:
            udp, tcp = sandbox_sockets(client.inside)
            with udp, tcp:
                view = View("s1", "s1", ("n1",), upstreams=(upstream(server.port),))
                await again.resolver.put_sandbox(view, (udp, tcp))
            assert await client.addresses("new") == ["192.0.2.7"]
        await nothing_was_lost(running)
        for sandbox in (await again.resolver.state()).known:
            await again.resolver.delete_sandbox(sandbox)
        with pytest.raises(ConnectionRefusedError):
            await client.ask("web")
        assert not (await again.resolver.state()).known
        await again.resolver.close()

    in_kernel(test, tmp_path)
    end(tmp_path / "dns.sock")


IN_KERNEL = "from functools import partial; process.run = partial(process.run, kernel='on')"


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_no_question_is_lost_in_an_upgrade(tmp_path: Path) -> None:
    async def test(path: Path, questions: Path) -> None:
        w = World(await Resolver.connect(path, start=False))
        if not w.in_kernel:
            pytest.skip(w.resolver.kernel.reason)
        await w.resolver.put_network("n1", "net1", MEMBERS)
        client = await w.sandbox("s1")
        running = await load(client, questions, 2)
        await w.resolver.close()
        again = await connected(path)
        assert again.resolver.kernel.program != w.resolver.kernel.program
        await again.resolver.put_network("n1", "net1", MEMBERS)
        ports = await again.resolver.put_sandbox(View("s1", "s1", ("n1",)))
        assert (ports.udp, ports.tcp, ports.program) == (client.udp, client.tcp, again.resolver.kernel.program)
        assert client.inside is not None
        attach(client.inside, ports)
        await again.resolver.join("n1", record("e3", ("new",), "10.0.0.4"))
        assert await client.addresses("new") == ["10.0.0.4"]
        await nothing_was_lost(running)
        await again.resolver.delete_sandbox("s1")
        await again.resolver.close()

    with old_process(tmp_path / "dns.sock", IN_KERNEL):
        in_kernel(test, tmp_path)
    end(tmp_path / "dns.sock")


def test_a_change_of_mode_replaces_the_process(tmp_path: Path) -> None:
    async def test(path: Path, questions: Path) -> None:
        first = await connected(path)
        client = await first.sandbox("s1")
        await first.resolver.close()
        second = await Resolver.connect(path, kernel="off")
        assert second.kernel.program == 0
        ports = await second.put_sandbox(View("s1", "s1", ("n1",)))
        assert (ports.udp, ports.tcp, ports.program) == (client.udp, client.tcp, 0)
        await second.delete_sandbox("s1")
        await second.close()

    in_kernel(test, tmp_path)
    end(tmp_path / "dns.sock")


def test_without_a_program_the_resolver_answers_and_says_why(tmp_path: Path) -> None:
    """What it is that lacks makes no difference: here the file was not compiled."""
    missing = f"from dns import kernel; kernel.OBJECT = Path({str(tmp_path / 'nothing')!r})\n{IN_KERNEL}"

    async def test(path: Path, questions: Path) -> None:
        resolver = await Resolver.connect(path, start=False)
        assert resolver.kernel.program == 0 and "make setup" in resolver.kernel.reason
        w = World(resolver)
        await resolver.put_network("n1", "net1", MEMBERS)
        assert await (await w.sandbox()).addresses("web") == ["10.0.0.2"]
        await resolver.close()

    with old_process(tmp_path / "dns.sock", missing):
        in_kernel(test, tmp_path)


def test_what_goes_leaves_nothing_in_the_maps(tables: Tables) -> None:
    kernel = kernel_module.Kernel.open(tables, (0, random.getrandbits(60)))
    maps = kernel._loaded.maps

    def content() -> list[object]:
        numbers = maps["netd_tables"]
        used = [n for n in range(numbers.entries) if any(numbers.get(layout.NUMBER.pack(n)) or b"")]
        return [list(maps["netd_names"].keys()), list(maps["netd_sandboxes"].keys()), used]

    for _ in range(2):
        for network in tables.networks.values():
            kernel.put_network(network)
        for name, (networks, links) in SANDBOXES.items():
            aliases = {
                each: {wire.encode_name(a): wire.encode_name(b) for a, b in links[each].items()} for each in links
            }
            view = control.SandboxView(name, name, networks, links)
            assert kernel.put_sandbox(view, Scope(networks, aliases), (5301, 5302))
        late = tables.networks["n3"]
        kernel.change_names(late, late.join(control.Member("late", ("late", "*.late"), (bytes(4), bytes(16)))))
        kernel.change_names(late, late.leave("late"))
        names, sandboxes, used = content()
        assert (len(names) > 100, len(sandboxes), len(used)) == (True, len(SANDBOXES), len(NETWORKS))
        removed = [tables.networks[each] for each in list(tables.networks)]
        for network in removed:
            tables.delete(network.id)
            kernel.delete_network(network.id)
        for name in SANDBOXES:
            kernel.delete_sandbox(name)
        assert content() == [[], [], []]
        for network in removed:
            tables.put(network)
    kernel.let_go()
