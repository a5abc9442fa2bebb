"""The queue id of mail that Postfix made itself, which lmtp(8) does not forward."""

import pytest

from pipehandler.ingress.lmtp import local_queue_id

DATE = b"; Thu, 26 Nov 2026 22:27:06 +0000 (UTC)\n"


@pytest.mark.parametrize(
    ("first", "queue_id"),
    [
        (b"Received: by mx.example.net (Postfix, from userid 0)\n\tid 4jbB4B1848z3QxkD" + DATE, "4jbB4B1848z3QxkD"),
        (b"Received: by mx.example.net (Postfix)\n\tid 3A0B1" + DATE, "3A0B1"),  # a bounce
        # Of another host, whose client may have written what it wants.
        (b"Received: from by (x [192.0.2.1])\n\tby mx (Postfix) with ESMTP id 4jbB" + DATE, ""),
        (b"Subject: one\nReceived: by mx (Postfix)\n\tid 3A0B1" + DATE, ""),
        (b"Received: by mx (Postfix)\n\tid ../../x" + DATE, ""),
        (b"Received: by mx (Postfix)\n\tid " + b"A" * 33 + DATE, ""),
        (b"", ""),
    ],
)
def test_local_queue_id(first: bytes, queue_id: str) -> None:
    """It is in the first field, and only in that, as cleanup(8) writes it."""
    assert local_queue_id(first + b"Subject: one\n\nbody\n") == queue_id
