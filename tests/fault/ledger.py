"""The record of what was sent and what was stored: nothing lost, nothing duplicated, nothing bounced."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from harness.database import Database

_T = TypeVar("_T")
_STEPS = (1, 7, 11, 17, 29, 37, 43, 59, 71, 101)


class Scale(Enum):
    """The scale of a campaign: a sample for `script/test`, all kinds in about an hour, or all points."""

    SHORT = "short"
    THIN = "thin"
    FULL = "full"

    @property
    def short(self) -> bool:
        """Whether it is the sample."""
        return self is Scale.SHORT

    def thin(self, points: Sequence[_T], most: int) -> Sequence[_T]:
        """All points; for THIN, about `most` of them, evenly spaced. The step is a prime number, so that it does not
        coincide with the periods of the errors, places and sizes."""
        if self is not Scale.THIN:
            return points
        return points[:: next((step for step in _STEPS if len(points) <= step * most), _STEPS[-1])]


class Mode(Enum):
    """How messages are delivered: by the entrypoint itself, or by a resident worker to which it hands them, in Python or in
    C (the client)."""

    COLD = "cold"
    RESIDENT = "resident"
    CLIENT = "client"

    def row(self, kind: str) -> "Row":
        """An empty row of the table."""
        return Row(kind if self is Mode.COLD else f"{kind}, {self.value}")


@dataclass
class Row:
    """One line of the campaign's table. `points`: places or ways in which a fault was injected. `statuses`: how often
    each exit status was seen (negative: killed by that signal). The three that must stay 0 count deliveries."""

    kind: str
    points: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    bounced: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the promise held."""
        return not (self.lost or self.doubled or self.bounced or self.findings)

    def add(self, other: "Row") -> None:
        """Count what another row counted."""
        self.points += other.points
        self.sent += other.sent
        self.lost += other.lost
        self.doubled += other.doubled
        self.bounced += other.bounced
        self.statuses += other.statuses
        self.findings += other.findings

    def note(self, finding: str) -> None:
        """Record something that should not have happened; it fails the campaign."""
        self.findings.append(finding)


class Ledger:
    """The messages of one campaign, by recipient; each message goes once to each of its recipients."""

    def __init__(self) -> None:
        self._sent: dict[str, list[bytes]] = {}

    def send(self, raw: bytes, *recipients: str) -> None:
        """Record that `raw` was sent to `recipients`."""
        for recipient in recipients:
            self._sent.setdefault(recipient, []).append(hashlib.sha256(raw).digest())

    def check(self, database: Database, row: Row) -> None:
        """Compare with what is stored, byte for byte, and count lost and duplicate deliveries."""
        stored: dict[str, Counter[bytes]] = {}
        for recipient, digest in self.digests(database, row):
            stored.setdefault(recipient, Counter())[digest] += 1
        for recipient, sent in self._sent.items():
            there = stored.pop(recipient, Counter())
            row.sent += len(sent)
            row.lost += sum((Counter(sent) - there).values())
            row.doubled += sum((there - Counter(sent)).values())
        for recipient, there in stored.items():
            row.note(f"{recipient} has {there.total()} deliveries that were never sent")

    def digests(self, database: Database, row: Row) -> Iterator[tuple[str, bytes]]:
        """Recipient and digest of each delivery that is stored."""
        for recipient, digest in database.rows(
            "SELECT d.recipient, sha256(coalesce(d.prepended, '') || r.raw) AS digest FROM pipehandler.delivery d"
            "  JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        ):
            yield recipient, bytes(digest)
