"""Read address lists of the plainest form (RFC 5322 3.4), which nearly all mail has, without mail-parser.

Read here are lists of `local@example.org`, `<local@example.org>` and `Name <local@example.org>`, all of it ASCII and in
one line: dot-atoms, and a name of atoms or one quoted string. The grammar gives these one meaning, so mail-parser has
nothing to decide. Importing it is a sixth of a cold delivery, and a call takes as long as scanning the whole message.
"""

import re

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_DOT_ATOM = rf"{_ATEXT}++(?:\.{_ATEXT}++)*+"
_ADDRESS = rf"(?!'){_DOT_ATOM}@{_DOT_ATOM}"  # one in single quotes is for address.py
# Without what mail-parser or address.py may read in another way: an escape, a delimiter of groups and comments, an "@".
_QUOTED = r'"[A-Za-z0-9!#$%&\'*+,./=?^_`{|}~ -]++"'
_MAILBOX = re.compile(rf" *+(?:(?:({_ATEXT}++(?: ++{_ATEXT}++)*+|{_QUOTED}) *+)?<({_ADDRESS})>|({_ADDRESS})) *+")


def read(body: str) -> list[tuple[str, str]] | None:
    """Return the (name, mailbox) pairs of a list, encoded-words not decoded; None if it is not of the plainest form."""
    found: list[tuple[str, str]] = []
    position = 0
    while match := _MAILBOX.match(body, position):
        name, named, bare = match.groups("")
        if name.startswith('"'):
            if "=?" in name:
                return None
            name = name.strip('"')
        found.append((name, named or bare))
        position = match.end()
        if position == len(body):
            return found
        if body[position] != ",":
            return None
        position += 1
    return None
