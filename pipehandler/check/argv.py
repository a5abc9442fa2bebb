"""Does master.cf start the handler as it wants to be started: the interpreter, its options, the entrypoint, the macros?"""

import os
import re
from collections.abc import Iterator

from pipehandler.mail.envelope import OPTIONS
from pipehandler.postfix.postconf import Service
from pipehandler.postfix.templates import ENTRYPOINT
from pipehandler.settings.config import DEFAULT_PATH, Config

DEFERRED = "Every message would be deferred, and returned to its sender in the end."

_NEEDED = tuple(name for name in OPTIONS if name not in ("config", "socket", "size"))
"""The macros that the entry must pass on. Not size: where a Milter is configured it may be left out (README)."""


Raw = tuple[str, str, str, str]
"""A finding whose mend, where it is empty, is to print the whole entry anew."""


def place(service: Service) -> int:
    """Where in argv `deliver` stands, after our program; 0 where it does not."""
    for index, word in enumerate(service.argv[1:], 1):
        if word == "deliver" and re.search(r"(^|/)pipehandler(/__main__\.py)?$", service.argv[index - 1]):
            return index
    return 0


def configuration(service: Service) -> str:
    """The path of the configuration that the entry names."""
    return _option(service, "config") or DEFAULT_PATH


def check_argv(service: Service, path: str, config: Config | None) -> Iterator[Raw]:
    """What is wrong with argv. path: of the configuration that is checked; config: what is in it, if it loads."""
    yield from _program(service)
    yield from _arguments(service, path, config)


def _program(service: Service) -> Iterator[Raw]:
    interpreter, entrypoint = service.argv[0], service.argv[place(service) - 1]
    if not os.access(interpreter, os.X_OK) or os.path.isdir(interpreter):
        what = f"there is no program {interpreter}"
        yield "interpreter-missing", what, "The handler cannot start. " + DEFERRED, ""
        return
    if not entrypoint.endswith("/__main__.py"):
        yield (
            "interpreter-options",
            "argv does not run __main__.py with the options -I and -S of the interpreter",
            "A message for a resident worker costs several times as much, because everything is loaded for it.",
            "",
        )
        return
    options = service.argv[1 : place(service) - 1]
    if set(options) != {"-I", "-S"}:
        yield (
            "interpreter-options",
            f"the interpreter has the options {' '.join(options) or '(none)'}; they should be -I -S",
            "-I keeps the environment from deciding which code runs; -S saves most of the time of a start.",
            "",
        )
    if not os.path.exists(entrypoint):
        yield "entrypoint-missing", f"there is no {entrypoint}", "The handler cannot start. " + DEFERRED, ""
    elif not os.path.samefile(entrypoint, ENTRYPOINT):
        why = "What was checked is not what delivers: it may be another version, with another schema."
        yield "installation", f"it runs {entrypoint}, and this is {ENTRYPOINT}", why, ""


def _option(service: Service, name: str) -> str:
    values = [word.partition("=")[2] for word in service.argv if word.startswith(f"--{name}=")]
    return values[0] if values else ""


def _arguments(service: Service, path: str, config: Config | None) -> Iterator[Raw]:
    given = service.argv[place(service) + 1 :]
    if given[-2:-1] != ("--",) or _macro(given[-1]) != "recipient":
        yield (
            "argv-recipient",
            "argv does not end in -- ${recipient}",
            "A recipient that begins with a dash would be taken for an option. " + DEFERRED,
            "",
        )
    seen: dict[str, str] = {}
    strange = []
    for word in given:
        if word == "--" or _macro(word) == "recipient":
            break
        name, _, value = word.removeprefix("--").partition("=")
        wrong = name not in OPTIONS or name in seen or "=" not in word or not word.startswith("--")
        if wrong or (name not in ("config", "socket") and _macro(value) != name.replace("-", "_")):
            strange.append(word)
        seen.setdefault(name, value)
    if strange:
        why = "The handler refuses what it does not know, and stores what it is told. " + DEFERRED
        yield "argv-unknown", f"argv has {' '.join(strange)}, which should not be there, or not so", why, ""
    missing = [f"--{name}=${{{name.replace('-', '_')}}}" for name in _NEEDED if name not in seen]
    if missing:
        why = DEFERRED if "sender" not in seen else "What Postfix knows of the message is not stored with it."
        yield "argv-missing", f"argv lacks {' '.join(missing)}", why, ""
    if os.path.abspath(configuration(service)) != os.path.abspath(path):
        yield (
            "configuration-other",
            f"it delivers with {configuration(service)}, and {path} was named here",
            "What was checked is not what delivers.",
            "",
        )
    elif config and seen.get("socket", "") != config.serve.socket:
        yield (
            "socket-other",
            f"--socket is {seen.get('socket') or 'missing'}, and serve.socket is {config.serve.socket}",
            "Resident workers are never asked: every message is delivered cold, for ten times the CPU time.",
            "",
        )


def _macro(word: str) -> str:
    """The name in ${name}, $(name) or $name; "" for anything else."""
    found = re.fullmatch(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))", word)
    return next(filter(None, found.groups()), "") if found else ""
