"""Undo format=flowed (RFC 3676): join the lines that were wrapped only for transport."""

from io import StringIO

SIGNATURE = "-- "  # RFC 3676 4.3


def unflow(text: str, delete_space: bool = False) -> str:
    """Return `text`, whose line ends are LF, with its flowed lines joined into paragraphs.

    `delete_space` is DelSp=yes: the space at the end of a flowed line is not part of the text. Quoted lines (4.5) keep
    one mark per level, and space-stuffing (4.4) is undone.
    """
    out = StringIO()
    open_depth, first = -1, True  # the quote depth of the open paragraph; -1 for none
    for line in StringIO(text, newline="\n"):
        line = line.removesuffix("\n")
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        if depth != open_depth or content == SIGNATURE:  # a paragraph ends with its quote
            out.write("" if first else "\n")
            out.write(">" * depth + " " * bool(depth and content))
        flowed = content.endswith(" ") and content != SIGNATURE
        out.write(content[:-1] if flowed and delete_space else content)
        open_depth, first = depth if flowed else -1, False
    out.write("\n" if text.endswith("\n") else "")
    return out.getvalue()
