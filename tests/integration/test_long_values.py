"""Values that a sender chooses cost the database time in proportion to their length, whatever they consist of, with and
without rules.

The limit is generous, because the machine may be busy; anything not linear takes minutes at a million octets.
`bench/run rules` prints the times.
"""

import json
from contextlib import closing
from typing import Any

import pytest
from harness.database import Database
from harness.submission import INGEST, submission

from pipehandler.store.message_store import MessageStore

SECONDS = 60  # quadratic time would take days
SIZES = (64, 1_000, 10_000, 100_000, 1_000_000)

ALPHABETS = {
    "a label": ("a@xn--", "a9", ".example"),
    "many labels": ("a@", "xn--bcher-kva.", "example"),
    "marks": ("a", "\u0301\u0323", "@example.com"),
    "expansions": ("a", "\ufdfa", "@example.com"),
    "capitals": ("A", "ǄΣẞ", "@EXAMPLE.com"),
    "at signs": ("a", "@", "example.com"),
    "delimiters": ("a", "+", "@example.com"),
    "wildcards": ("a", "%_\\", "@example.com"),
}

RULES = [
    {key: pattern.format(n)}
    for n in range(334)
    for key, pattern in (("sender", "%x{}@%.example.%"), ("recipient", "%a%b{}%@%"), ("list_id", "%.l{}.%"))
]

TEXTS = ("sender", "queue_id", "client_hostname", "client_helo", "client_protocol", "sasl_username")


def value(alphabet: str, size: int) -> str:
    """So many octets of an alphabet, in the form of an address."""
    first, middle, last = ALPHABETS[alphabet]
    return first + middle * max(1, (size - len(first + last)) // len(middle.encode())) + last


def arguments(alphabet: str, size: int) -> list[Any]:
    """A message each of whose texts has this length."""
    text = value(alphabet, size)
    envelope, parsed, *rest = submission(b"Subject: %d\n\n%s" % (size, alphabet.encode())).arguments()
    mailboxes = [{"name": text, "address": text, "group": text}]
    changed = json.loads(envelope) | dict.fromkeys(TEXTS, text)
    changed["recipients"] = [
        {"recipient": text, "original_recipient": text},
        {"recipient": f"x{text}", "original_recipient": None},
    ]
    view = json.loads(parsed) | {
        f"{name}_list": mailboxes for name in ("from", "sender", "reply_to", "to", "cc", "bcc")
    }
    view |= {"message_id": text, "in_reply_to": [text], "reference_ids": [text], "subject": text, "list_id": text}
    view |= {"header": [[text, text]], "authentication": {"spf": text}}
    return [json.dumps(changed), json.dumps(view), text, text, *rest[2:]]


@pytest.mark.parametrize("rules", [0, len(RULES)])
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_ingest_is_linear(database: Database, alphabet: str, rules: int) -> None:
    """No text in a message or an envelope makes a delivery slow, and later rules are applied to it just as quickly."""
    text = json.dumps([rule | {"keep": 86_400} for rule in RULES[:rules]])
    database.execute("SELECT pipehandler.set_retention(%s)", text)
    with closing(MessageStore(database.conninfo, statement_timeout=SECONDS)) as store:
        for size in SIZES:
            assert len(store.rows(INGEST, arguments(alphabet, size))) == 2
    with closing(
        MessageStore(database.server.conninfo(database.name, user="upkeep"), statement_timeout=SECONDS)
    ) as store:
        store.script("SELECT pipehandler.set_retention('[]')")
        store.values(
            "SELECT pipehandler.set_retention(%s)", [json.dumps([rule | {"keep": 3_600} for rule in RULES])], of=bool
        )
        (row,) = store.rows("SELECT applied, skipped FROM pipehandler.apply_rules()")
        assert (row["applied"], row["skipped"]) == (2 * len(SIZES), [])


def test_a_rule_still_matches(database: Database) -> None:
    """An address as long as RFC 5321 allows is matched regardless of case, and a longer one exactly."""
    database.execute("""SELECT pipehandler.set_retention('[{"sender": "%@example.com", "keep": 3600}]')""")
    with closing(MessageStore(database.conninfo)) as store:
        for sender in ("X" * 200 + "@EXAMPLE.com", "X" * 600 + "@example.com", "X" * 600 + "@EXAMPLE.com"):
            store.ingest(submission(b"Subject: x\n\n" + sender.encode(), sender=sender))
    rows = database.rows("SELECT expires_at IS NOT NULL AS matched FROM pipehandler.delivery ORDER BY id")
    assert [row.matched for row in rows] == [True, True, False]
