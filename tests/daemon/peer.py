"""A tiny echo service and its client, run by the tests inside namespaces.

peer.py serve PORT [PORT…]        answers "ADDRESS PORT" on TCP and UDP: whom it sees, and on which port
peer.py ask tcp|udp ADDRESS PORT  prints that answer, or "nothing: REASON"
"""

from __future__ import annotations

import selectors
import socket
import sys


def serve(ports: list[int]) -> None:
    sockets = selectors.DefaultSelector()
    for port in ports:
        stream = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=50)
        datagram = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagram.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagram.bind(("::", port))
        sockets.register(stream, selectors.EVENT_READ, port)
        sockets.register(datagram, selectors.EVENT_READ, port)
    print("ready", flush=True)
    while True:
        for key, _ in sockets.select():
            answer(key.fileobj, key.data)


def answer(server: socket.socket, port: int) -> None:
    if server.type == socket.SOCK_DGRAM:
        _, peer = server.recvfrom(2048)
        server.sendto(told(peer, port), peer)
    else:
        connection, peer = server.accept()
        with connection:
            connection.sendall(told(peer, port))


def told(peer: tuple[str, int], port: int) -> bytes:
    return f"{peer[0].removeprefix('::ffff:')} {port}".encode()


def ask(kind: str, address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        try:
            client.connect((address, port))
            if kind == "udp":
                client.send(b"hello")
            return client.recv(2048).decode()
        except OSError as error:
            return f"nothing: {error.strerror or error}"


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve([int(port) for port in sys.argv[2:]])
    else:
        print(ask(sys.argv[2], sys.argv[3], int(sys.argv[4])))
