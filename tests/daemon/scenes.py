"""What happens to a world of three hosts, one scene after the other; each returns a line about what it measured."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.daemon.cluster import Member, overlay
from tests.daemon.damage import DAMAGES, Damage
from tests.daemon.eyes import look, until_reached
from tests.daemon.harness import eventually, run
from tests.daemon.storm import RESIDENTS, Storm, schedule
from tests.daemon.world import HOSTS, World

SUBNETS = {"red": "10.11.0.0/24", "blue": "10.12.0.0/24"}
ALWAYS = {"HostConfig": {"RestartPolicy": {"Name": "always"}}}
NAMES = ("names", "reuse", "repair", "death", "cut", "outage", "storm")
LEASE = 25.0  # seconds until a host that is gone is forgotten on any store
# so many pairs fill the machine's one table of neighbours, which cannot be made larger from inside a namespace
MESH = threading.Lock()
Told = Callable[[str, str | BaseException], None]


def play(world: World, seed: str, seconds: float, told: Told) -> None:
    """All scenes; what comes of each is told under its name."""
    for scene in (names, reuse, repair, death):
        with outcome(scene.__name__, told) as say:
            say(scene(world, random.Random(f"{seed}/{scene.__name__}")))
    five_minutes(world, seed, seconds, told)


@contextmanager
def outcome(name: str, told: Told) -> Iterator[Callable[[str], None]]:
    """Tell what is said inside, or what is raised there."""
    said: list[str] = []
    try:
        yield said.append
    except Exception as error:
        told(name, error)
    else:
        told(name, "; ".join(said))


def static(address: str, network: str = "red", **more: Any) -> dict[str, Any]:
    """What a request for a container says to give it this address."""
    settings = {"IPAMConfig": {"IPv4Address": address}, **more}
    return {"NetworkingConfig": {"EndpointsConfig": {network: settings}}}


# ---- fair weather ---------------------------------------------------------------------------------------


def names(world: World, choose: random.Random) -> str:
    """30 containers on two networks; afterwards one on each network stays on each host."""
    for network, subnet in SUBNETS.items():
        overlay(world.members[1], network, IPAM={"Config": [{"Subnet": subnet}]})
    for member in world.members.values():
        eventually(lambda m=member: SUBNETS.keys() <= {n["Name"] for n in m.get("/networks")})
    for name, host in RESIDENTS.items():
        world.run(name, host, name.partition("-")[0], **ALWAYS)
    extra = [f"{network}{n}" for network in SUBNETS for n in range(12)]
    for name in extra:
        world.run(name, choose.choice(HOSTS), name.rstrip("0123456789"))
    with MESH:
        took = world.agrees(20)
        _nobody_across(world)
        world.forget_neighbours()
    for name in ("red-1", "blue-2"):
        network, _, host = name.partition("-")
        other = f"{network}-3"
        assert world.members[int(host)].reaches(name, other), f"ping {other} from {name}"
    for name in extra:
        world.rm(name)
    world.agrees(15)
    return f"30 containers on 2 networks and 3 hosts find and reach each other by name, seen after {took:.1f} s"


def _nobody_across(world: World) -> None:
    places = world.places()
    assert len(places) == 30, len(places)
    for network, other in (("red", "blue"), ("blue", "red")):
        eyes = [world.eye(p) for p in places if p.network == network]
        strangers = [p for p in places if p.network == other]
        assert len(eyes) == len(strangers) == 15
        for seen in look(eyes, {p.name for p in strangers}, {p.address for p in strangers}, within=2).values():
            assert not seen.alive, f"from {network} somebody reaches {seen.alive} on {other}"
            assert not any(seen.names.values()), f"on {network} names of {other} resolve: {seen.names}"


def reuse(world: World, choose: random.Random) -> str:
    """An address goes from host to host, with its MAC and with another one."""
    address, slowest, before = "10.11.0.200", 0.0, ""
    residents = [world.eye(p) for p in world.places() if p.network == "red"]
    for number, host in enumerate((1, 2, 3, 1, 3, 2)):
        if before:
            world.rm(before)
        before = f"moves{number}"
        mac = {"MacAddress": f"02:00:00:00:00:{number:02x}"} if number % 2 else {}
        world.members[host].create(before, "sleep", "100000", network="red", **static(address, **mac))
        # the address is given back a moment after its container is gone
        start = f"/containers/{before}/start"
        eventually(lambda m=world.members[host], path=start: m.api("POST", path).status == 204, within=2)
        world.wanted[before] = host
        slowest = max(slowest, *until_reached(residents, address, within=10))
        assert slowest < 2, f"{address} on host{host} was reached after {slowest:.1f} s"
    world.rm(before)
    world.agrees(15)
    return f"an address used again on another host 5 times is reached from everywhere after {slowest * 1e3:.0f} ms"


def repair(world: World, choose: random.Random) -> str:
    """Each kind of damage, on a host and to a thing that chance chooses."""
    times = {}
    for damage in choose.sample(DAMAGES, len(DAMAGES)):
        # the bound is a calm machine's, and others may be using this one: the best of three
        tried = []
        while len(tried) < 3 and min(tried, default=9) >= 1:
            tried.append(_mended(world, damage, choose))
        times[damage.__name__] = min(tried)
        assert min(tried) < 1, f"{damage.__name__} was mended after {tried} s"
    world.agrees(15)
    return "deleted by hand and back after " + ", ".join(f"{name} {t * 1e3:.0f} ms" for name, t in times.items())


def _mended(world: World, damage: Damage, choose: random.Random) -> float:
    place = choose.choice(sorted((p for p in world.places() if p.name in RESIDENTS), key=str))
    before = _seen(world, place.member, place.network_id, place.pid)
    command = damage(place, before, choose)
    run(*command)
    begun = time.monotonic()
    eventually(lambda: _seen(world, place.member, place.network_id, place.pid) == before, within=10)
    took = time.monotonic() - begun
    address = {p.address for p in world.places() if p.network == place.network}
    eyes = [world.eye(p) for p in world.places() if p.network == place.network]
    for seen in look(eyes, (), address, within=10).values():
        assert seen.alive == address, f"{damage.__name__}: {address - seen.alive} is not reached afterwards"
    return took


def _seen(world: World, member: Member, network_id: str, pid: int) -> dict[str, Any]:
    """All that the kernel has of a network on a host and of one of its containers."""
    inside = ("nsenter", f"--net={member.exec_root}/overlays/{network_id[:12]}", "ip")
    container = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
    return {
        "rows": world.rows(member, network_id),
        "links": sorted(_links(run(*inside, "-o", "link", check=False).stdout)),
        "addresses": sorted(_links(run(*container, "-o", "-4", "address", check=False).stdout)),
        "routes": run(*container, "-4", "route", check=False).stdout,
        "in it": sorted(_links(run(*container, "-o", "link", check=False).stdout)),
    }


def _links(text: str) -> Iterator[str]:
    for line in text.splitlines():
        words = line.split()
        # a number that a new device has another of, and what ticks
        yield " ".join([words[1].partition("@")[0], *words[2:6], *(w for w in words if w.startswith("br"))])


# ---- foul weather ---------------------------------------------------------------------------------------


def death(world: World, choose: random.Random) -> str:
    """Everything on a host is killed; later it is there again."""
    one, two, three = (world.members[host] for host in HOSTS)
    overlay(three, "lonely")
    world.run("alone", 3, "lonely", **ALWAYS)
    world.run("fixed", 3, "red", **static("10.11.0.210"), **ALWAYS)
    world.run("brief", 3, "red")
    world.agrees(15)
    before = {(p.name, p.network, p.address) for p in world.places_of(three) if p.name in RESIDENTS}

    three.kill_all()
    three.host.run("ip", "link", "del", "eth0")
    begun = time.monotonic()
    there = {p.name for p in world.places_of(one)} | {p.name for p in world.places_of(two)}
    names = sorted(p for p in world.wanted if p not in there)
    while known := _known(world, (one, two), names):
        assert time.monotonic() - begun < LEASE + 10, known
        time.sleep(0.1)
    gone = time.monotonic() - begun
    assert gone < LEASE, f"a dead host was forgotten after {gone:.1f} s"
    eventually(lambda: two.api("DELETE", "/networks/lonely").status == 204, within=5)
    one.create("heir", "sleep", "100000", network="red", **static("10.11.0.210"))
    eventually(lambda: one.api("POST", "/containers/heir/start").status == 204, within=5)
    world.wanted["heir"] = 1
    for name in ("alone", "fixed", "brief"):
        world.forget(name)

    begun = time.monotonic()
    world.hub.plug_in(three)
    three.start()
    world.agrees(20)
    back = time.monotonic() - begun
    after = {(p.name, p.network, p.address) for p in world.places_of(three)}
    assert after == before, "the containers that are started again have other addresses"
    eventually(lambda: "10.11.0.210" in three.log.read_text() and "lonely" in three.log.read_text())
    told = [line for line in three.log.read_text().splitlines() if "fixed" in line or "10.11.0.210" in line]
    for name in ("alone", "fixed", "brief"):
        three.remove_container(name)
    world.rm("heir")
    world.agrees(15)
    return f"a dead host was forgotten after {gone:.1f} s and had all back {back:.1f} s after its start; told: {told}"


def _known(world: World, members: tuple[Member, ...], names: list[str]) -> list[str]:
    """What these hosts still know of containers with these names: in DNS, in the kernel, to show."""
    places = [place for member in members for place in world.places_of(member)]
    addresses = {place.address for place in places}
    found = []
    for place in places:
        shown = place.member.containers_on(place.network) & set(names)
        (seen,) = look([world.eye(place)], names, within=2).values()
        resolved = {name for name in names if seen.names.get(name)}
        _, neighbours = world.rows(place.member, place.network_id)
        if strange := shown | resolved | ({address for address, _ in neighbours} - addresses):
            found.append(f"{place.member.hostname} knows {strange} on {place.network}")
    return found


def five_minutes(world: World, seed: str, seconds: float, told: Told) -> None:
    """A random schedule, and in it a host that is cut off and a store that is down, each for a minute."""
    minute = min(60.0, seconds / 5)
    cut, outage = seconds * 0.15, seconds * 0.55
    steps = schedule(seed, seconds, [(cut, cut + minute + 5), (outage - 1, outage + minute + 10)])
    storm, begun = Storm(world), time.monotonic()
    with outcome("storm", told) as say:
        with storm.watch.on():
            storm.blow(steps, begun, cut)
            with outcome("cut", told) as say_cut:
                say_cut(_a_minute_cut_off(world, storm, lambda end: storm.blow(steps, begun, end), cut, minute))
            storm.blow(steps, begun, outage)
            with outcome("outage", told) as say_outage:
                say_outage(_a_minute_without_store(world, storm, lambda t: storm.blow(steps, begun, t), outage, minute))
            storm.blow(steps, begun, seconds)
            storm.settle()
            try:
                took = world.agrees(LEASE + 15)
            except AssertionError as error:
                error.add_note("the schedule:\n" + "\n".join(storm.done))
                raise
        assert not storm.watch.interruptions(), storm.watch.interruptions()
        storm.tidy()
        say(f"{len(storm.done)} steps in {seconds:.0f} s, all is well {took:.1f} s later")
        say(f"lost to others and said so: {sorted(world.lost())}; refused: {dict(storm.refused)}")
        say(f"without the store after {storm.slowest:.1f} s at most")


Blow = Callable[[float], None]


def _a_minute_cut_off(world: World, storm: Storm, blow: Blow, at: float, minute: float) -> str:
    """A host reaches neither store nor peers, while all goes on elsewhere and on it."""
    storm.settle()
    world.agrees(LEASE + 15)
    two, before = world.members[2], {p for p in world.places_of(world.members[2]) if p.name in RESIDENTS}
    storm.cut(2, 3600)
    blow(at + minute)
    for place in before:
        seen = look([world.eye(place)], RESIDENTS, within=2)[world.eye(place)]
        known = {name for name, addresses in seen.names.items() if addresses}
        assert known >= {n for n in RESIDENTS if n.startswith(place.network)}, (
            f"{place} knows only {known} when cut off"
        )
    storm.settle()
    took = world.agrees(LEASE)
    after = {p for p in world.places_of(two) if p.name in RESIDENTS}
    assert after == before, f"the residents have become {after - before}"
    return f"cut off for {minute:.0f} s and healed: all is well {took:.1f} s later"


def _a_minute_without_store(world: World, storm: Storm, blow: Blow, at: float, minute: float) -> str:
    """The store is down; most goes on, and what cannot is refused at once with a sentence."""
    storm.settle()
    world.agrees(LEASE + 15)
    world.server.kill()
    begun = time.monotonic()
    try:
        slowest = max(_refused(member) for member in world.members.values())
        _local_networks_work(world.members[1])
        for member, end in ((world.members[2], Member.kill9), (world.members[3], Member.stop)):
            end(member)
            member.start()
        _names_resolve(world)
        blow(at + max(minute, time.monotonic() - begun))
        storm.settle()
        _names_resolve(world)
    finally:
        world.server.start()
    took = world.agrees(20)
    assert took < 5, f"all was well only {took:.1f} s after the store was back"
    return f"refused without the store after {slowest:.1f} s at most; all is well {took:.1f} s after it is back"


def _refused(member: Member) -> float:
    """Every global change is refused; returns the seconds that the slowest took."""
    member.create("late", network="red")
    took = []
    for method, path, body in (
        ("POST", "/networks/create", {"Name": "late", "Driver": "overlay"}),
        ("POST", "/containers/late/start", None),
        ("DELETE", "/networks/red", None),
    ):
        begun = time.monotonic()
        reply = member.api(method, path, body)
        took.append(time.monotonic() - begun)
        assert reply.status == 503 or (method == "DELETE" and reply.status == 403), reply
        assert reply.message.count(" ") > 3, reply.message
        assert took[-1] < 5, f"{method} {path} was refused after {took[-1]:.1f} s"
    member.remove_container("late")
    return max(took)


def _local_networks_work(member: Member) -> None:
    member.network("local")
    for name in ("l1", "l2"):
        member.run_container(name, "sleep", "1000", network="local")
    assert member.reaches("l1", "l2")
    for name in ("l1", "l2"):
        member.remove_container(name)
    assert member.api("DELETE", "/networks/local").status == 204


def _names_resolve(world: World) -> None:
    """What was known when the store went is known on all hosts, but for what has ended."""
    places = [p for p in world.places() if p.name in RESIDENTS]
    for place in places:
        wanted = {p.name: {p.address} for p in places if p.network == place.network}
        (seen,) = look([world.eye(place)], wanted, {a for w in wanted.values() for a in w}, within=5).values()
        assert seen.names == wanted, f"{place} resolves {seen.names}"
        assert len(seen.alive) == len(wanted), f"{place} reaches only {seen.alive}"
