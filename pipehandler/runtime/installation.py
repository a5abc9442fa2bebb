"""What is installed and what is configured, as one number each: two processes have the same if their numbers are equal."""

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, distribution

from ..handover import INSTALLATION
from ..settings.config import Config

PACKAGES = ("pipehandler", "psycopg", "psycopg-binary", "psycopg-c", "mail-parser", "chardet", "click")
"""The distributions that deliveries run; those that are not installed do not matter."""


def digest(*parts: bytes) -> int:
    """Return a number that stands for `parts`: 48 bits, which every reader of JSON keeps exactly."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"%d:" % len(part) + part)
    return int.from_bytes(hashed.digest()[:6])


def code_digest() -> int:
    """Return the number of the installed code: the interpreter, and the lists of files of the packages with their hashes.

    Compare it only with that of a process that has just started: the lists are read now, what runs was loaded at the start.
    """
    return digest(sys.version.encode(), INSTALLATION, *(_record(name) for name in PACKAGES))


def configuration_digest(config: Config) -> int:
    """Return the number of a configuration: of its values, not of its text."""
    return digest(repr(config).encode("utf-8", "surrogatepass"))


def _record(name: str) -> bytes:
    try:
        return (distribution(name).read_text("RECORD") or "").encode()
    except PackageNotFoundError:
        return b""
