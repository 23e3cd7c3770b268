"""Batches of datagrams: slots, addresses of both families, what cannot be sent."""

from __future__ import annotations

import socket

import pytest

from dns.datagrams import BODY, QUERY, SLOTS, Datagrams


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_each_reply_goes_where_its_question_came_from(family: socket.AddressFamily, host: str) -> None:
    batch = Datagrams()
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        clients = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(SLOTS + 1)]
        for number, client in enumerate(clients):
            client.connect(server.getsockname())
            client.settimeout(2)
            client.send(number.to_bytes(2) + b"x" * number)
        assert batch.receive(server.fileno(), SLOTS) == SLOTS
        for slot, client in enumerate(clients[:SLOTS]):
            assert batch.client(slot) == client.getsockname()
            assert batch.lengths[16 * slot + 14] == 2 + slot
            batch.bodies[slot * BODY : slot * BODY + 1] = b"y"
            batch.body_lengths[6 * slot + 5] = 1
        batch.send(server.fileno(), 0, SLOTS)
        for number, client in enumerate(clients[:SLOTS]):
            assert client.recv(100) == number.to_bytes(2) + b"y"
        assert batch.receive(server.fileno(), SLOTS) == 1
        assert batch.receive(server.fileno(), SLOTS) == 0
        for client in clients:
            client.close()


def test_a_longer_datagram_is_cut_and_a_reply_that_cannot_be_sent_is_passed_over() -> None:
    batch = Datagrams()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(server.getsockname())
            client.send(b"z" * (QUERY + 1))
            assert batch.receive(server.fileno(), SLOTS) == 1
            assert batch.lengths[14] == QUERY
        batch.send(server.fileno(), 0, 2)  # the second slot was never filled: it has no address
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.receive(server.fileno(), 1)
