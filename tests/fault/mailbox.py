"""The content of the store, to the octet, for comparison with a model."""

from collections import Counter

from harness.database import Database

Mailbox = Counter[tuple[str, bytes]]
"""How often each recipient has each message, exactly as it was read."""


def stored(database: Database) -> Mailbox:
    """All deliveries."""
    return Counter(
        (recipient, bytes(raw))
        for recipient, raw in database.rows(
            "SELECT d.recipient, coalesce(d.prepended, '') || r.raw AS raw"
            "  FROM pipehandler.delivery d JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        )
    )


def clear(database: Database) -> None:
    """Empty the store."""
    database.execute(
        "TRUNCATE pipehandler.message, pipehandler.raw_message, pipehandler.attachment, pipehandler.delivery"
    )
