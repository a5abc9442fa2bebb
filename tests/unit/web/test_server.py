"""The socket on which the inbox page listens."""

import socket

import pytest

from pipehandler.web.server import listener


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_an_answer_does_not_wait_for_an_acknowledgement(address: str) -> None:
    with listener(address) as listening, socket.create_connection(listening.getsockname()[:2]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
