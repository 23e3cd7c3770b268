"""Run inside a container's network: `hostile.py udp COUNT` or `hostile.py tcp SECONDS`, against 127.0.0.11:53.

Malformed, truncated, random and hostile messages: nothing that comes back is read.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import sys
import time

RESOLVER = ("127.0.0.11", 53)
HEADER = b"\1\0\0\1\0\0\0\0\0\0"
LONGEST = (b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"y" * 61 + b"\0"  # 255 bytes
TAIL = b"\0\1\0\1"


def corpus(rng: random.Random) -> list[bytes]:
    """20,000 messages of every bad kind."""
    good = [HEADER + name + TAIL for name in (b"\2db\0", b"\2DB\4shop\0", b"\3www\7example\4test\0", LONGEST)]
    opt = b"\0\0\x29\xff\xff\0\0\0\0\0\0"
    fixed = [
        HEADER + b"\xc0\x0c" + TAIL,  # a pointer to itself
        HEADER + b"\1a\xc0\x0e" + TAIL,  # and in a circle
        HEADER + b"\xc0\xff" + TAIL,
        HEADER + b"\x80web\0" + TAIL,
        HEADER + LONGEST[:-1] + b"\1z\0" + TAIL,  # 257 bytes
        HEADER[:2] + b"\xff\xff" * 4 + b"\2db\0" + TAIL,  # 65,535 of everything
        HEADER[:-1] + b"\2" + b"\2db\0" + TAIL + opt * 2,
        HEADER[:-1] + b"\1" + b"\2db\0" + TAIL + opt[:-2] + b"\xff\xff",
        b"\x81\x80" + HEADER[2:] + b"\2db\0" + TAIL,  # a reply
        HEADER + b"\2db\0" + TAIL + b"\0" * 60000,
    ]
    found = []
    for _ in range(20_000):
        packet = bytearray(rng.choice(good if rng.random() < 0.7 else fixed[:-1]))
        for _ in range(rng.randrange(4)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        if rng.random() < 0.2:
            del packet[rng.randrange(len(packet)) :]
        if rng.random() < 0.05:
            packet = bytearray(rng.randbytes(rng.randrange(600)))
        found.append(rng.randbytes(2) + bytes(packet))
    return found + [b"\1\2" + message for message in fixed]


def udp(count: int) -> None:
    """So many datagrams, as fast as they can be sent: the kernel drops what finds the resolver's socket full."""
    packets = corpus(random.Random(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(RESOLVER)
        for number in range(count):
            with contextlib.suppress(OSError):  # what the last ones provoked
                sock.send(packets[number % len(packets)])


def tcp(seconds: float) -> None:
    """Frames of 64 KiB and of nothing, writers that trickle, clients that never read, connections broken off."""
    rng = random.Random(2)
    packets = corpus(rng)
    end = time.monotonic() + seconds
    trickling = [socket.create_connection(RESOLVER) for _ in range(20)]
    while time.monotonic() < end:
        for sock in trickling:
            with contextlib.suppress(OSError):
                sock.send(rng.randbytes(1))
        with contextlib.suppress(OSError), socket.create_connection(RESOLVER, timeout=1) as sock:
            huge = HEADER + b"\2db\0" + TAIL
            sock.send(b"\xff\xff\1\2" + huge + os.urandom(65533 - len(huge)))
            sock.send(b"\0\0" * 1000)
            sock.setblocking(False)
            for packet in rng.sample(packets, 200):
                sock.send(struct.pack("!H", len(packet)) + packet)
            if rng.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.01)


if __name__ == "__main__":
    {"udp": lambda count: udp(int(count)), "tcp": lambda seconds: tcp(float(seconds))}[sys.argv[1]](sys.argv[2])
