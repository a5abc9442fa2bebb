"""What senders chose, as a page shows it: names, subjects, addresses. Names of files are in headers.py.

Embeddings, overrides and isolates (UAX 9, 2.1 to 2.4) turn the direction of what follows them, so that "exe.gpj" is read as
"jpg.exe". An element isolates its text (`bdi`, `dir`), but the title of a tab, a notification and a label are plain text.
"""

import re

from jinja2 import Environment

from .hosts import forms, has_mixed_scripts, named_hosts, owns

_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that look like a blank."""
_LONGEST = 300  # characters of a name that are searched for a site


def straight(text: str | None) -> str:
    """Return a text without what turns the direction of what follows; "" for none, and for one in which nothing can be read."""
    text = _TURNING.sub("", text or "")
    return (
        text if any(letter.isprintable() and not letter.isspace() and letter not in _BLANK for letter in text) else ""
    )


def visible(text: str | None) -> str:
    r"""Return a text as it is written, with what turns the direction as \u202e, for those who look at a header or a source."""
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", text or "")


def author(name: str | None, address: str | None) -> str:
    """Return what one line shows of an author: the name, or the address where the name is that of another site; "" for none.

    A list shows names without addresses, so `"service@bank.example" <x@evil.example>` would be read as an address.
    """
    shown, behind = straight(name), straight(address)
    return behind if behind and (not shown or names_another(name, address)) else shown


def names_another(name: str | None, address: str | None) -> bool:
    """Whether the name of an author names a site, or an address of one, that has nothing to do with the author's address."""
    domain = forms(_domain(address))[1]
    return any(not owns(host, domain) and not owns(domain, host) for host in named_hosts(straight(name)[:_LONGEST]))


def initial(text: str) -> str:
    """Return the first letter or digit of a name, as a capital; "?" if there is none."""
    return next((letter.upper()[0] for letter in text if letter.isalnum()), "?")


def shortened(text: str, most: int = 200) -> str:
    """Return a text, or the beginning of one that has more characters, which ends with "…"."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def cut_within(text: str, most: int = 200) -> str:
    """Return an address or the name of a file, without its middle if it has more characters: its end says what it is."""
    kept = (most - 1) // 2
    return text if len(text) <= most else f"{text[:kept]}…{text[-kept:]}"


def other_domain(address: str | None) -> str:
    """Return the domain of an address in its other form, as Unicode or as it is asked for (RFC 5890); "" if both are the same."""
    domain = _domain(address)
    in_unicode, in_ascii = forms(domain)
    other = in_unicode if domain.isascii() else in_ascii
    return "" if other == domain.lower() else other


def imitates(address: str | None) -> bool:
    """Whether the domain of an address may look like another: it mixes scripts, or imitates Latin letters."""
    return has_mixed_scripts(forms(_domain(address))[0])


def _domain(address: str | None) -> str:
    return straight(address).rpartition("@")[2].rstrip(".")


def install(environment: Environment) -> None:
    """Give templates these functions as filters, and the test `imitation` of an address."""
    for function in (straight, visible, author, initial, shortened, cut_within, other_domain):
        environment.filters[function.__name__] = function
    environment.tests["imitation"] = imitates
    environment.tests["naming_another"] = lambda mailbox: names_another(mailbox["name"], mailbox["address"])
