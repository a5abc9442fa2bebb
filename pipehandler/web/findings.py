"""What a reader takes from a message beside its text: its links, and the code or the confirmation link that it is about.

The rules look at hostile text with regular expressions, so they run in the child process of the sanitiser (sanitise.py), never
in the process of the page.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from . import codes
from .links import Link, links_of_text


@dataclass(frozen=True, slots=True)
class Findings:
    """links: each URL once, with its real host. found: the code or the confirmation link, None if that is not clear."""

    links: tuple[Link, ...]
    found: codes.OneTimeCode | codes.ConfirmationLink | None

    @property
    def size(self) -> int:
        """Characters that they take."""
        return sum(len(link.text) + 2 * len(link.url) for link in self.links)


def findings(subject: str, text: str, plain: str, links: Sequence[Link]) -> Findings:
    """Find the links and the code of a message.

    text: what a person reads of it. plain: its plain text, whose links are listed beside `links`, those of its HTML.
    """
    # The link with a text of its own, which comes first, stays.
    every = (*links, *links_of_text(plain))
    distinct = tuple({link.url: link for link in reversed(every)}.values())[::-1]
    return Findings(distinct, codes.find(subject, text, distinct))


def packed(links: Sequence[Link]) -> bytes:
    """Return links as octets, for the pipe between the processes."""
    return json.dumps([astuple(link) for link in links]).encode()


def unpacked(octets: bytes) -> tuple[Link, ...]:
    """Return the links that `packed` has packed. Raises ValueError for anything else: what sent them may be taken over."""
    values = json.loads(octets)
    return tuple(
        Link(str(text), str(url), str(host), str(ascii_host), bool(mismatch), bool(mixed))
        for text, url, host, ascii_host, mismatch, mixed in values
    )
