"""The manual pages pipehandler(8) and pipehandler.toml(5), in the macros of mdoc(7)."""

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from pipehandler import __version__
from pipehandler.mail import sysexits
from pipehandler.mail.outcome import TABLE
from pipehandler.settings.config import DEFAULT_SOCKET, SECTIONS, Key, State, keys
from pipehandler.settings.config_file import DEFAULT_PATH
from pipehandler.settings.retention import KEYS

from .commands import PROGRAM, Command, commands

DATE = "November 26, 2026"
"""The date of the pages; changed with each release."""

_MINIMAL = """[database]
conninfo = "host=/run/postgresql dbname=mail user=pipehandler"
admin_conninfo = "host=/run/postgresql dbname=mail user=root"
"""

_STATUSES = {
    sysexits.EX_OK: "Success.",
    1: "The check found a problem (check).",
    2: "Wrong usage.",
    3: "The check found nothing, but could do a part only, because it was not run as root (check).",
    sysexits.EX_DATAERR: "A message was refused (import).",
    sysexits.EX_NOINPUT: "No such message.",
    sysexits.EX_UNAVAILABLE: "The database does not answer, or a package is not installed.",
    sysexits.EX_CANTCREAT: "The output cannot be written.",
    sysexits.EX_TEMPFAIL: "A message was deferred (import).",
    sysexits.EX_CONFIG: "Wrong configuration.",
}
"""The exit statuses of all commands but deliver."""


def pipehandler() -> str:
    """pipehandler(8)."""
    program, *others = commands()
    return _page(
        PROGRAM,
        8,
        "store the mail of Postfix in PostgreSQL",
        [
            ".Sh SYNOPSIS",
            f".Nm {PROGRAM}",
            *(".Op " + _option(names, " | ") for names, _ in program.options),
            ".Ar command",
            ".Op Ar argument ...",
            ".Sh DESCRIPTION",
            *_paragraphs(program.description),
            *_options(program.options),
            ".Sh COMMANDS",
            *(line for command in others for line in _command(command)),
            ".Sh FILES",
            ".Bl -tag -width Ds",
            f".It Pa {DEFAULT_PATH}",
            "The configuration, see",
            ".Xr pipehandler.toml 5 .",
            f".It Pa {State().directory}",
            "The state directory: the journal of all deliveries, and what they share.",
            f".It Pa {DEFAULT_SOCKET}",
            "The socket of the resident workers.",
            ".El",
            ".Sh EXIT STATUS",
            *_text("Of all commands but deliver:"),
            *_list((_quoted(str(status)), [meaning]) for status, meaning in _STATUSES.items()),
            ".Pp",
            *_text(
                "Of deliver, with the word in the log and the line that Postfix logs and shows to the sender. "
                "With status 0 the message is stored. 71 and 75 defer: Postfix tries again. 65 and 67 bounce."
            ),
            *_list(
                (
                    f"{row.status} {_quoted(row.name)}",
                    [f"\N{LEFT DOUBLE QUOTATION MARK}{row.line()}\N{RIGHT DOUBLE QUOTATION MARK}"],
                )
                for row in TABLE
            ),
            ".Sh SEE ALSO",
            *_see_also("postqueue 1", "master 5", "pgsql_table 5", "pipehandler.toml 5", "pipe 8"),
        ],
    )


def configuration() -> str:
    """pipehandler.toml(5)."""
    return _page(
        "pipehandler.toml",
        5,
        "configuration of pipehandler",
        [
            ".Sh DESCRIPTION",
            *_text(
                "The configuration is one TOML file. It has the sections below. A key that is not in the file has its "
                "default. A key, a type or a value that is not allowed is an error that names it: deliveries are "
                "deferred, and `pipehandler check` shows the error before the first mail does. The program reads the "
                "file for every delivery, and resident workers read it again when it has changed."
            ),
            *(line for name, section in SECTIONS.items() for line in _section(name, section)),
            ".Ss [[retention]]",
            *_text(
                "Each table is one rule that limits how long mail is kept. The first rule whose patterns all match a "
                "delivery decides. Without a matching rule mail is kept forever."
            ),
            *_list(
                (
                    _quoted(name),
                    [f"{_sentence(key.meaning)}", f"Allowed: {key.allowed}.", f"Without it: {key.missing}."],
                )
                for name, key in KEYS.items()
            ),
            ".Sh FILES",
            ".Bl -tag -width Ds",
            f".It Pa {DEFAULT_PATH}",
            "The file that is read without",
            ".Fl -config .",
            ".El",
            ".Sh EXAMPLES",
            "With peer authentication of PostgreSQL this is enough:",
            ".Bd -literal -offset indent",
            *_MINIMAL.splitlines(),
            ".Ed",
            ".Sh SEE ALSO",
            *_see_also("postconf 5", "pipehandler 8"),
        ],
    )


def _page(name: str, section: int, summary: str, body: list[str]) -> str:
    head = [
        '.\\" Written by script/reference.',
        f".Dd {DATE}",
        f".Dt {name.upper()} {section}",
        f'.Os "pipehandler {__version__}"',
        ".Sh NAME",
        f".Nm {name}",
        f".Nd {summary}",
    ]
    return "\n".join([*head, *body]) + "\n"


def _command(command: Command) -> Iterator[str]:
    yield f".Ss {command.name}"
    yield f".Nm {_quoted(command.name)}"
    yield from map(_argument, command.usage)
    yield ".Pp"
    yield from _paragraphs(command.description)
    options = [option for option in command.options if option[0] != "-h, --help"]  # documented once, for the program
    if options:
        yield from _options(options)


def _argument(piece: str) -> str:
    """'PATH', '[ID]...' or '[all|main.cf]' in macros."""
    found = re.fullmatch(r"(\[?)([^\[\]=]*?)\]?((?:\.\.\.)?)", piece)
    if not found:
        return f".Ar {_quoted(piece)}"
    name = " | ".join(map(_quoted, found[2].split("|")))
    return f"{'.Op Ar' if found[1] else '.Ar'} {name} {found[3]}".rstrip()


def _options(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    return _list((_option(names), [_sentence(meaning)]) for names, meaning in options)


def _section(name: str, section: Any) -> Iterator[str]:
    yield f".Ss [{name}]"
    yield from _text(section.__doc__ or "")
    yield from _list(
        (_quoted(name), [_sentence(key.meaning), *_values(section._field_defaults[name], key)])
        for name, key in keys(section).items()
    )


def _values(default: Any, key: Key) -> Iterator[str]:
    """The default of a key, and what is allowed."""
    if isinstance(default, bool):
        yield f"Default: {str(default).lower()}."
    elif isinstance(default, int):
        yield f"Default: {default}. Allowed: {key.low} to {key.high}."
    elif isinstance(default, tuple):
        yield "Default: []. Allowed: a list of strings."
    else:
        allowed = " Allowed: " + ", ".join(f'"{choice}"' for choice in key.choices) + "." if key.choices else ""
        yield f'Default: "{default}".{allowed}'


def _list(items: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    """A tagged list; the tag is a macro line, the rest is text."""
    yield ".Bl -tag -width Ds"
    for tag, texts in items:
        yield f".It {tag}"
        for text in texts:
            yield from _text(text)
    yield ".El"


def _option(names: str, separator: str = " , ") -> str:
    """'-h, --help' or '--part [a|b]' in macros: Fl h , Fl -help."""
    words = []
    for alternative in names.split(", "):
        flag, _, value = alternative.partition(" ")
        words.append(f"Fl {flag[1:]}" + (f" Ar {_quoted(value)}" if value else ""))
    return separator.join(words)


def _see_also(*pages: str) -> Iterator[str]:
    """Cross references, by section and name as mdoc(7) requires."""
    for page in pages:
        yield f".Xr {page}" + (" ," if page != pages[-1] else "")


def _paragraphs(texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".Pp"
        yield from _text(text)


def _sentence(text: str) -> str:
    """A text of --help or of a key with a full stop."""
    return text if text.endswith((".", "]")) else f"{text}."


def _text(text: str) -> Iterator[str]:
    """Text lines: each sentence on a new line, what roff would take as a request or an escape protected."""
    for sentence in re.split(r"(?<=[.!?:]) +(?=[A-Z])", " ".join(text.split())):
        for line in textwrap.wrap(_escaped(sentence), 78, break_long_words=False, break_on_hyphens=False):
            yield f"\\&{line}" if line[0] in ".'" else line


def _escaped(text: str) -> str:
    escapes = {"\\": "\\e", "\N{LEFT DOUBLE QUOTATION MARK}": "\\(lq", "\N{RIGHT DOUBLE QUOTATION MARK}": "\\(rq"}
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", "".join(escapes.get(character, character) for character in text))


def _quoted(text: str) -> str:
    """One argument of a macro."""
    return '"' + _escaped(text).replace('"', '""') + '"'
