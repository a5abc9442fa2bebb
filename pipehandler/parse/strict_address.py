"""Read address lists strictly by RFC 5322 with mail-parser, the only module that imports it. Imported on use."""

from mailparser.utils import get_addresses


def read(body: str) -> list[tuple[str, str]] | None:
    """Return the (name, mailbox) pairs of a list; None if mail-parser reports an ambiguity. Raises whatever it raises.

    `body` is text that mail-parser reads in bounded time (header.py).
    """
    unclear: list[object] = []
    pairs: list[tuple[str, str]] = get_addresses(body, defects=unclear, decode_names=True)
    return None if unclear else pairs
