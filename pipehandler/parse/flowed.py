"""Text in format=flowed (RFC 3676): its paragraphs, without the breaks that were only made for the way."""

SIGNATURE = "-- "  # RFC 3676 4.3


def unflow(text: str, delete_space: bool = False) -> str:
    """`text`, whose line ends are LF, with its flowed lines joined to paragraphs.

    `delete_space` is DelSp=yes: the space at the end of a flowed line is no part of the text. Quoted lines (4.5) keep one
    mark for each level, and space-stuffing (4.4) is undone.
    """
    if not text:
        return text
    lines: list[str] = []
    paragraph, open_depth = [""], -1  # of which quote depth a paragraph is open; -1 for none
    end = "\n" if text.endswith("\n") else ""
    for line in text.removesuffix("\n").split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        flowed = content.endswith(" ") and content != SIGNATURE
        if open_depth >= 0 and (depth != open_depth or content == SIGNATURE):  # a paragraph ends with its quote
            lines.append("".join(paragraph))
            open_depth = -1
        if open_depth < 0:
            paragraph = [">" * depth + " " * bool(depth and content)]
        paragraph.append(content[:-1] if flowed and delete_space else content)
        open_depth = depth if flowed else -1
        if not flowed:
            lines.append("".join(paragraph))
    if open_depth >= 0:
        lines.append("".join(paragraph))
    return "\n".join(lines) + end
