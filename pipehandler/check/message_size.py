"""A command that raises limits.message_size in the configuration file, whichever way the section is written there."""

import re
import shlex

from pipehandler.settings.config import memory_needed
from pipehandler.settings.config_file import load

_LARGEST = 1_000_000_000


def raise_message_size(path: str, size: int) -> str:
    """Return a sed command for limits.message_size, and for limits.memory if it has to follow; "" if `size` is not allowed.

    Raises ConfigError if the file cannot be loaded.
    """
    if size > _LARGEST:
        return ""
    limits = {"message_size": size}
    if load(path).limits.memory < memory_needed(size):
        limits["memory"] = memory_needed(size)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    scripts = [word for key, value in limits.items() for word in ("-e", _script(text, key, value))]
    return shlex.join(["sed", "-Ei", *scripts, path])


def _script(text: str, key: str, value: int) -> str:
    """Return the sed script that gives a key of [limits] a value."""
    pattern = rf"^([ \t]*(limits[.])?{key}[ \t]*=).*"
    if re.search(pattern, text, re.MULTILINE):
        return rf"s/{pattern}/\1 {value}/"
    if re.search(r"^[ \t]*\[limits\]", text, re.MULTILINE):
        return rf"/^[ \t]*\[limits\]/a {key} = {value}"
    return f"1i limits.{key} = {value}"
