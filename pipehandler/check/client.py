"""Check the hand-over client, where master.cf starts it: it is tried with the words of master.cf and as the account of the transport,
so a file that is missing, damaged, of another processor or on a noexec mount is found before the first mail.
"""

import os
import shlex
from collections.abc import Iterator
from typing import Any

from pipehandler.postfix import client
from pipehandler.postfix.postconf import Postfix, Service
from pipehandler.postfix.templates import PROGRAM

from .access import Identity, closed, opened
from .account import identity_of, run_as
from .argv import DEFERRED, PartialFinding, client_words, deliver_index, interpreter


def entrypoint(service: Service) -> str:
    """Return which entrypoint the entry starts, for people."""
    words = client_words(service)
    return f"the hand-over client {words[-2]}" if len(words) > 1 else "the Python entrypoint"


def check_client(postfix: Postfix, service: Service) -> Iterator[PartialFinding]:
    """Check the words before the interpreter. An empty fix: print the whole entry again."""
    words = client_words(service)
    if not words:
        return
    if len(words) != 3 or not os.path.basename(words[0]).startswith("ld"):
        yield (
            "client-loader",
            f"{' '.join(words)}: the client is not started by the dynamic loader",
            "If its file is empty, sh runs it and leaves with 0: Postfix would delete messages that were never stored.",
            "",
        )
        return
    path = words[1]
    packages = service.argv[deliver_index(service) - 1]
    if words[2] != client.OPTION + packages:
        yield (
            "client-packages",
            f"{words[2]} is not the folder that the interpreter gets, {packages}",
            "Resident workers are never used, or those of another installation: messages are delivered cold.",
            "",
        )
    again = shlex.join([PROGRAM, "client", path])
    identity = identity_of(service) if os.geteuid() == 0 else None
    try:
        client.try_out(words, interpreter(service), _starter(postfix, identity) if identity else None)
    except client.ClientError as error:
        shut = (
            closed((path,), Identity(identity["user"], identity["group"])) if identity and os.path.exists(path) else []
        )
        fix = opened(shut, "") if shut else again if client.shipped() else ""
        yield "client-broken", f"the hand-over client does not work: {error}", DEFERRED, fix
        return
    if not client.shipped():
        yield (
            "client-unknown",
            f"{path} cannot be compared: this installation was made without a C compiler and has no hand-over client",
            "It works, but nothing shows whether the file is whole.",
            "# install a C compiler, and pipehandler again: docs/resident-workers.md",
        )
    elif not client.is_shipped(path):
        yield (
            "client-other",
            f"{path} is not the hand-over client of this installation",
            "It is older or was changed; one that does not know this service delivers every message cold.",
            again,
        )


def _starter(postfix: Postfix, identity: dict[str, Any]) -> client.Starter:
    """Return what starts a command as pipe(8) would."""

    def start(command: list[str]) -> tuple[int, str]:
        done = run_as(identity, command, postfix)
        return done.returncode, done.stdout + done.stderr

    return start
