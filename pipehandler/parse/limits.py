"""How much of one message is decoded: bounds that real mail does not reach and hostile mail does.

Past a bound only the decoded view is lost, and a defect says so; the raw bytes are stored whatever happens.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds on one message. All are counts but `field_size`, which is in octets.

    `depth`: multiparts in one another (Postfix's own mime_nesting_limit is 100). `parts`: parts of all kinds.
    `fields`: header fields of the message, and of each part. `field_size`: the body of one field (Postfix cuts at
    header_size_limit, 102,400). `addresses`: mailboxes in one field.
    """

    depth: int = 100
    parts: int = 1_000
    fields: int = 1_000
    field_size: int = 131_072
    addresses: int = 10_000


DEFAULT = Limits()
