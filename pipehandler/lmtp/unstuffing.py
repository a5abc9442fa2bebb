"""The text of a message behind DATA: octets in, the message out, wherever the octets are cut (RFC 5321 4.5.2).

Only CRLF "." CRLF ends the text (RFC 5321 4.1.1.4), so no bare CR or LF can smuggle a second message into the first.
CRLF becomes LF, as pipe(8) writes it; any other CR or LF is an octet of the message.
"""

_END = b"\r\n.\r\n"


class Unstuffer:
    """One message; a new one for each DATA."""

    def __init__(self) -> None:
        self._held = b"\r\n"  # what may begin the end, or a dot to remove; a message begins as if a line had ended
        self._invented = 1  # octets of the output that stand for this line end

    def feed(self, octets: bytes) -> tuple[bytes, bytes | None]:
        """Return the content that is now complete, and what follows the end of the message; None before the end."""
        octets = self._held + octets
        end = octets.find(_END)
        rest = None if end < 0 else octets[end + len(_END) :]
        whole = len(octets) - _held(octets) if end < 0 else end + 2
        self._held = octets[whole:] if end < 0 else b""
        content = octets[:whole].replace(b"\r\n.", b"\r\n").replace(b"\r\n", b"\n")
        if content and self._invented:
            content, self._invented = content[1:], 0
        return content, rest


def _held(octets: bytes) -> int:
    """Count the last octets that may be the beginning of _END."""
    return next(length for length in range(len(_END) - 1, -1, -1) if octets.endswith(_END[:length]))
