"""Limits on how much of one message is decoded. Real mail does not reach them; hostile mail does.

Beyond a limit only the decoded view is incomplete, and a defect records it. The raw bytes are always stored.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits on one message. All are counts except `field_size`, which is in octets.

    `depth`: nested multiparts (Postfix's own mime_nesting_limit is 100). `parts`: parts of all kinds. `fields`: header
    fields of the message, and of each part. `field_size`: the body of one field (Postfix truncates at
    header_size_limit, 102,400). `addresses`: mailboxes in one field.
    """

    depth: int = 100
    parts: int = 1_000
    fields: int = 1_000
    field_size: int = 131_072
    addresses: int = 10_000


DEFAULT = Limits()
