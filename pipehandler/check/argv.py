"""Check how master.cf starts the handler: the interpreter, its options, the entrypoint, the macros."""

import os
import re
from collections.abc import Iterator

from pipehandler.mail.envelope import OPTIONS
from pipehandler.postfix.postconf import Service
from pipehandler.postfix.templates import ENTRYPOINT
from pipehandler.settings.config import DEFAULT_PATH, Config

DEFERRED = "Every message would be deferred, and eventually returned to its sender."

_NEEDED = tuple(name for name in OPTIONS if name not in ("config", "socket", "size"))
"""The macros that the entry must pass. Not size: with a Milter it may be omitted (see the docs)."""


PartialFinding = tuple[str, str, str, str]
"""A finding whose fix, if empty, is to print the whole entry again."""


def deliver_index(service: Service) -> int:
    """Return the index of `deliver` after our program in argv; 0 if it is missing."""
    for index, word in enumerate(service.argv[1:], 1):
        if word == "deliver" and re.search(r"(^|/)pipehandler(/__main__\.py)?$", service.argv[index - 1]):
            return index
    return 0


def configuration(service: Service) -> str:
    """Return the path of the configuration that the entry names."""
    return _option(service, "config") or DEFAULT_PATH


def check_argv(service: Service, path: str, config: Config | None) -> Iterator[PartialFinding]:
    """Check argv. path: of the configuration that is checked; config: its contents, if it loads."""
    yield from _program(service)
    yield from _arguments(service, path, config)


def _program(service: Service) -> Iterator[PartialFinding]:
    interpreter, entrypoint = service.argv[0], service.argv[deliver_index(service) - 1]
    if not os.access(interpreter, os.X_OK) or os.path.isdir(interpreter):
        what = f"{interpreter} is missing or not executable"
        yield "interpreter-missing", what, "The handler cannot start. " + DEFERRED, ""
        return
    if not entrypoint.endswith("/__main__.py"):
        yield (
            "interpreter-options",
            "argv does not run __main__.py with the options -I and -S of the interpreter",
            "A message for a resident worker costs several times as much, because every start loads everything.",
            "",
        )
        return
    options = service.argv[1 : deliver_index(service) - 1]
    if set(options) != {"-I", "-S"}:
        yield (
            "interpreter-options",
            f"the interpreter has the options {' '.join(options) or '(none)'}; they should be -I -S",
            "-I keeps the environment from deciding which code runs; -S saves most of the time of a start.",
            "",
        )
    if not os.path.exists(entrypoint):
        yield "entrypoint-missing", f"{entrypoint} does not exist", "The handler cannot start. " + DEFERRED, ""
    elif not os.path.samefile(entrypoint, ENTRYPOINT):
        detail = "The installation that was checked is not the one that delivers; its version and schema may differ."
        yield "installation", f"it runs {entrypoint}, but this installation is {ENTRYPOINT}", detail, ""


def _option(service: Service, name: str) -> str:
    values = [word.partition("=")[2] for word in service.argv if word.startswith(f"--{name}=")]
    return values[0] if values else ""


def _arguments(service: Service, path: str, config: Config | None) -> Iterator[PartialFinding]:
    arguments = service.argv[deliver_index(service) + 1 :]
    if arguments[-2:-1] != ("--",) or _macro(arguments[-1]) != "recipient":
        yield (
            "argv-recipient",
            "argv does not end in -- ${recipient}",
            "A recipient that begins with a dash would be read as an option. " + DEFERRED,
            "",
        )
    seen: dict[str, str] = {}
    unexpected = []
    for word in arguments:
        if word == "--" or _macro(word) == "recipient":
            break
        name, _, value = word.removeprefix("--").partition("=")
        wrong = name not in OPTIONS or name in seen or "=" not in word or not word.startswith("--")
        if wrong or (name not in ("config", "socket") and _macro(value) != name.replace("-", "_")):
            unexpected.append(word)
        seen.setdefault(name, value)
    if unexpected:
        detail = "The handler refuses unknown options, and stores a wrong value as it is. " + DEFERRED
        yield "argv-unknown", f"argv has unknown options or wrong values: {' '.join(unexpected)}", detail, ""
    missing = [f"--{name}=${{{name.replace('-', '_')}}}" for name in _NEEDED if name not in seen]
    if missing:
        detail = DEFERRED if "sender" not in seen else "What Postfix knows about the message is not stored with it."
        yield "argv-missing", f"argv lacks {' '.join(missing)}", detail, ""
    if os.path.abspath(configuration(service)) != os.path.abspath(path):
        yield (
            "configuration-other",
            f"it delivers with {configuration(service)}, but this check reads {path}",
            "The configuration that was checked is not the one that delivers.",
            "",
        )
    elif config and seen.get("socket", "") != config.serve.socket:
        yield (
            "socket-other",
            f"--socket is {seen.get('socket') or 'missing'}, but serve.socket is {config.serve.socket}",
            "Resident workers are never used: every message is delivered cold, for ten times the CPU time.",
            "",
        )


def _macro(word: str) -> str:
    """Return the name in ${name}, $(name) or $name; "" for anything else."""
    match = re.fullmatch(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))", word)
    return next(filter(None, match.groups()), "") if match else ""
