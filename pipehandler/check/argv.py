"""Check how master.cf starts the handler: the interpreter, its options, the entrypoint, the macros."""

import os
import re
import subprocess
from collections.abc import Iterator

from pipehandler.mail.envelope import OPTIONS
from pipehandler.postfix.client import OPTION
from pipehandler.postfix.postconf import Service
from pipehandler.postfix.templates import CODE, PACKAGES
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import DEFAULT_PATH

DEFERRED = "Every message would be deferred, and eventually returned to its sender."

_NEEDED = tuple(name for name in OPTIONS if name not in ("config", "socket", "size"))
"""The macros that the entry must pass. Not size: with a Milter it may be omitted (see the docs)."""


_OPTIONS = ("-I", "-S", "-X", "utf8")
"""The options of the interpreter that the example has before -c."""

_SECONDS = 20

NEW_ENVIRONMENT = "# create the environment again, in a new folder, and rename a link to it: docs/upgrade.md"
"""The fix if files of the installation cannot be used."""

PartialFinding = tuple[str, str, str, str]
"""A finding whose fix, if empty, is to print the whole entry again."""


def deliver_index(service: Service) -> int:
    """Return the index of `deliver` after our program in argv; 0 if it is missing."""
    for index, word in enumerate(service.argv[1:], 1):
        guarded = index > 2 and "pipehandler.fence" in service.argv[index - 2]
        if word == "deliver" and (guarded or re.search(r"(^|/)pipehandler(/__main__\.py)?$", service.argv[index - 1])):
            return index
    return 0


def client_words(service: Service) -> tuple[str, ...]:
    """Return the words of argv that start the hand-over client; () if the entry starts Python."""
    words = service.argv[: deliver_index(service)]
    options = [index for index, word in enumerate(words) if word.startswith(OPTION)]
    return words[: options[0] + 1] if options else ()


def interpreter(service: Service) -> str:
    """Return the path of the interpreter that the entry starts, or that the client becomes."""
    return service.argv[len(client_words(service))]


def main_file(service: Service) -> str:
    """Return the path of the __main__.py of the installation that the entry runs; "" if it runs the console script."""
    word = service.argv[deliver_index(service) - 1]
    if word.endswith("/__main__.py"):
        return word
    return os.path.join(word, "pipehandler", "__main__.py") if "-c" in service.argv[: deliver_index(service)] else ""


def configuration(service: Service) -> str:
    """Return the path of the configuration that the entry names."""
    return _option(service, "config") or DEFAULT_PATH


def check_argv(service: Service, path: str, config: Config | None) -> Iterator[PartialFinding]:
    """Check argv. path: of the configuration that is checked; config: its contents, if it loads."""
    yield from _program(service)
    yield from _arguments(service, path, config)


def _program(service: Service) -> Iterator[PartialFinding]:
    python, file = interpreter(service), main_file(service)
    if not os.access(python, os.X_OK) or os.path.isdir(python):
        what = f"{python} is missing or not executable"
        yield "interpreter-missing", what, "The handler cannot start. " + DEFERRED, ""
        return
    if not file:
        yield (
            "interpreter-options",
            "argv runs the console script, not the package with the options -I and -S of the interpreter",
            "A message for a resident worker costs several times as much, because every start loads everything.",
            "",
        )
        return
    before = service.argv[len(client_words(service)) + 1 : deliver_index(service) - 1]
    guarded = before[-2:] == ("-c", CODE)
    options = before[:-2] if "-c" in before else before
    if not guarded:
        what = f"the text after -c is not that of this version: {before[-1]}" if "-c" in before else f"it runs {file}"
        yield (
            "entrypoint-unguarded",
            what,
            (
                "Python leaves with status 0 if that file is empty or truncated, after a full disk or a power failure: Postfix would"
                " delete messages that were never stored."
            ),
            "",
        )
    elif options != _OPTIONS:
        yield (
            "interpreter-options",
            f"the interpreter has the options {' '.join(options) or '(none)'}; they should be {' '.join(_OPTIONS)}",
            (
                "-I keeps the environment from deciding which code runs; -S saves most of the time of a start; -X utf8 keeps"
                " the octets of addresses, whatever the locale."
            ),
            "",
        )
    if not os.path.exists(file):
        yield "entrypoint-missing", f"{file} does not exist", "The handler cannot start. " + DEFERRED, ""
        return
    if not os.path.samefile(file, os.path.join(PACKAGES, "pipehandler", "__main__.py")):
        detail = "The installation that was checked is not the one that delivers; its version and schema may differ."
        what = f"it runs {os.path.dirname(file)}, but this installation is {os.path.join(PACKAGES, 'pipehandler')}"
        yield "installation", what, detail, ""
    yield from _version(python, file)


def _version(python: str, file: str) -> Iterator[PartialFinding]:
    """Compare the version of the interpreter with that of the folder, which an upgrade of the system's Python leaves behind."""
    folder = re.search(r"/python(\d+\.\d+)/", file)
    try:
        process = subprocess.run(  # noqa: S603 # what master.cf runs for every message
            [python, "-I", "-S", "-c", "import sys;print('%d.%d' % sys.version_info[:2])"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # check_account reports an interpreter that cannot be run
    version = process.stdout.strip()
    if folder and version and folder[1] != version:
        yield (
            "interpreter-version",
            f"{python} is Python {version}, but {file} was installed for Python {folder[1]}",
            "The libraries that pipehandler needs are missing for this Python. " + DEFERRED,
            NEW_ENVIRONMENT,
        )


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
