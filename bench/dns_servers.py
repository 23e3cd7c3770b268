"""The servers that `bench.dns` compares: each answers the same names, and says where it is to be asked.

100 names of ten containers: every container `hN` has ten aliases, and its address has a reverse name. Docker and
netd are real daemons with real containers, asked from inside a client container. The others have a network
namespace of their own and are asked on its loopback, which is a shorter way than their users have.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.docker_engine import DockerEngine
from drivers.ruleset import dns_redirect
from tests.daemon.harness import OUTSIDE_IP, Daemon, Host, eventually, run

CONTAINERS = [(f"h{i}", f"10.88.0.{10 + i}", [f"c{10 * i + k}" for k in range(10)]) for i in range(10)]
ADDRESSES = [(name, address) for _, address, names in CONTAINERS for name in names]

CEILING = r"""
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = inet_addr("127.0.0.11");
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 2 || bind(s, (void *)&at, sizeof at)) return 1;
    for (;;) {
        unsigned char m[1024];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(s, m, sizeof m - 16, 0, (void *)&from, &size);
        if (n < 12) continue;
        m[2] |= 0x80, m[3] |= 0x80, m[7] = 1;
        memcpy(m + n, "\xc0\x0c\0\1\0\1\0\0\0\x0a\0\4\x0a\0\0\1", 16);
        sendto(s, m, n + 16, 0, (void *)&from, size);
    }
}
"""


KERNEL_CEILING = r"""
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int blind(struct __sk_buff *skb) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct iphdr *ip = data + ETH_HLEN;
    struct udphdr *udp = (void *)(ip + 1);
    unsigned char *dns = (void *)(udp + 1);
    if ((void *)(dns + 12) > end || ip->protocol != IPPROTO_UDP || udp->dest != bpf_htons(53)) return TC_ACT_UNSPEC;
    __be32 address = ip->saddr;
    __be16 port = udp->source;
    ip->saddr = ip->daddr, ip->daddr = address;
    udp->source = udp->dest, udp->dest = port, udp->check = 0;
    dns[2] |= 0x80, dns[3] |= 0x80;
    return TC_ACT_UNSPEC;
}
char licence[] SEC("license") = "Apache-2.0";
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is asked: from this network namespace, at this address and port."""

    netns: str
    address: str = "127.0.0.11"
    port: int = 53


def questions() -> str:
    """A mix of A, AAAA and PTR, in dnsperf's form."""
    asked = []
    for name, address in ADDRESSES:
        reverse = ".".join(reversed(address.split(".")))
        asked += [f"{name} A", f"{name} AAAA", f"{reverse}.in-addr.arpa PTR"]
    return "\n".join([*asked, ""])


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with loopback up; its path."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield f"/run/netns/{name}"
    finally:
        run("ip", "netns", "del", name)


@contextmanager
def process(netns: str, port: int, *command: str) -> Iterator[None]:
    """A server that runs in a namespace; ready when it has the port."""
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(["nsenter", f"--net={netns}", *command], stdout=quiet, stderr=quiet)
    try:
        eventually(lambda: f":{port} " in run("nsenter", f"--net={netns}", "ss", "-Hlnu").stdout)
        yield
    finally:
        running.terminate()
        running.wait()


@contextmanager
def dnsmasq(work: Path) -> Iterator[Server]:
    lines = [f"{address} {name} {' '.join(aliases)}\n" for name, address, aliases in CONTAINERS]
    (work / "hosts").write_text("".join(lines))
    flags = ("-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--listen-address=127.0.0.1")
    with namespace("bench-dnsmasq") as netns:
        hosts = f"--addn-hosts={work / 'hosts'}"
        with process(netns, 53, "dnsmasq", *flags, "--user=root", "--bind-interfaces", hosts):
            yield Server(netns, "127.0.0.1")


@contextmanager
def aardvark(work: Path) -> Iterator[Server]:
    config = work / "aardvark"
    config.mkdir()
    # it answers only those it knows: dnsperf is one of the containers
    known = [*CONTAINERS, ("client", "127.0.0.1", [])]
    lines = [f"{i:064x} {address}  {','.join([name, *aliases])}\n" for i, (name, address, aliases) in enumerate(known)]
    (config / "shop").write_text("127.0.0.1\n" + "".join(lines))
    with namespace("bench-aardvark") as netns:
        enter = ("nsenter", f"--net={netns}")
        run(*enter, "/usr/lib/podman/aardvark-dns", "-c", config, "-p", "53", "run", capture_output=False)
        pid = int(eventually(lambda: (config / "aardvark.pid").read_text()))
        try:
            eventually(lambda: ":53 " in run(*enter, "ss", "-Hlnu").stdout)
            yield Server(netns, "127.0.0.1")
        finally:
            os.kill(pid, signal.SIGTERM)


@contextmanager
def ceiling(work: Path, *, rewritten: bool) -> Iterator[Server]:
    """The C program: behind the same rewrite of ports as netd-dns, or asked at its own port."""
    program = work / "ceiling"
    subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", str(program)], input=CEILING, text=True, check=True)
    with namespace(f"bench-ceiling-{rewritten:d}") as netns, process(netns, 5301, str(program), "5301"):
        if rewritten:
            run("nsenter", f"--net={netns}", "nft", "-f", "-", input=dns_redirect(5301, 5302))
        yield Server(netns, port=53 if rewritten else 5301)


@contextmanager
def kernel_ceiling(work: Path) -> Iterator[Server]:
    """A program in the kernel that turns every question into an empty answer, without looking at it."""
    program, headers = work / "ceiling.bpf.o", f"-I/usr/include/{platform.machine()}-linux-gnu"
    compiler = ("clang", "-O2", "-g", "-target", "bpf", headers, "-x", "c", "-c", "-", "-o", str(program))
    subprocess.run(compiler, input=KERNEL_CEILING, text=True, check=True)
    with namespace("bench-ceiling-kernel") as netns:
        run("nsenter", f"--net={netns}", "tc", "qdisc", "add", "dev", "lo", "clsact")
        words = ("tc", "filter", "add", "dev", "lo", "egress", "bpf", "direct-action", "object-file", program)
        run("nsenter", f"--net={netns}", *words, "section", "tc")
        yield Server(netns)


@contextmanager
def docker(image: Path) -> Iterator[tuple[Daemon, Server]]:
    with _engine("docker", DockerEngine, image) as found:
        yield found


@contextmanager
def netd(image: Path, *, kernel: bool) -> Iterator[tuple[Daemon, Server]]:
    """A netd whose names are answered in the kernel, or by netd-dns."""
    mode = "on" if kernel else "off"
    with _engine(f"netd-{mode}", Daemon, image, f"--dns-kernel={mode}") as found:
        yield found


@contextmanager
def _engine(name: str, kind: type[Daemon], image: Path, *options: str) -> Iterator[tuple[Daemon, Server]]:
    """A daemon with a network of ten containers, and one more that asks."""
    host = Host(f"bench-{name}")
    engine = kind(host, *options)
    try:
        host.make()
        engine.start()
        engine.import_image(image)
        engine.network("shop", IPAM={"Config": [{"Subnet": "10.88.0.0/24"}]})
        for container, address, aliases in CONTAINERS:
            settings = {"Aliases": aliases, "IPAMConfig": {"IPv4Address": address}}
            engine.run_container(container, network="shop", NetworkingConfig={"EndpointsConfig": {"shop": settings}})
        engine.run_container("client", network="shop", HostConfig={"Dns": [OUTSIDE_IP]})
        yield engine, Server(f"/proc/{engine.inspect('client')['State']['Pid']}/ns/net")
    finally:
        engine.remove()
        host.remove()
