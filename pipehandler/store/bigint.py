"""Numbers that name a row, as an operator types them."""

_LARGEST = (1 << 63) - 1  # bigint


def bigint(text: str) -> int | None:
    """The number that the digits of `text` write, if a bigint of PostgreSQL can hold it; else None."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST))):
        return None
    number = int(text)
    return number if number <= _LARGEST else None
