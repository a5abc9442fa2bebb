"""What senders chose, as a page shows it in one line: names, subjects, addresses. Names of files are in headers.py.

Embeddings, overrides and isolates (UAX 9, 2.1 to 2.4) turn the direction of what follows them, so that "exe.gpj" is read as
"jpg.exe". An element isolates its text (`bdi`, `dir`), but the title of a tab, a notification and a label are plain text.
"""

import re

from jinja2 import Environment

from .hosts import forms, has_mixed_scripts

_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def straight(text: str | None) -> str:
    """Return a text without what turns the direction of what follows; "" for none."""
    return _TURNING.sub("", text or "")


def visible(text: str | None) -> str:
    r"""Return a text as it is written, with what turns the direction as \u202e, for those who look at a header or a source."""
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text or "")


def ascii_domain(address: str | None) -> str:
    """Return the domain of an address as it is asked for (RFC 5890), if the address is written otherwise; else ""."""
    domain = _domain(address)
    return "" if domain.isascii() else forms(domain)[1]


def imitates(address: str | None) -> bool:
    """Whether the domain of an address may look like another: it mixes scripts, or imitates Latin letters."""
    return has_mixed_scripts(forms(_domain(address))[0])


def _domain(address: str | None) -> str:
    return straight(address).rpartition("@")[2]


def install(environment: Environment) -> None:
    """Give templates these functions as filters, and the test `imitation` of an address."""
    for function in (straight, visible, ascii_domain):
        environment.filters[function.__name__] = function
    environment.tests["imitation"] = imitates
