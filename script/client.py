"""The build hook of the wheel (hatchling, in pyproject.toml): compile the hand-over client, pipehandler/handover.c.

Nothing needs it, so nothing here ends a build: without a compiler, or with one that fails, a line says why, and the wheel has
Python alone. CC names another compiler, as for make(1).

A client without libc is the smallest to load: musl-gcc links one of 34 KB, which any kernel of its processor runs. One that is
linked statically with glibc takes more CPU time than a dynamic one through the loader, and has 700 KB.
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "pipehandler/handover.c"
PATH = "pipehandler/share/bin/pipehandler-client"
"""The place of the client in the wheel."""

COMPILERS = ("musl-gcc -static", "cc -fPIE -pie", "gcc -fPIE -pie", "clang -fPIE -pie")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-s")
_SECONDS = 60

_REFUSAL = (75, b"4.3.5 mail system incorrectly configured\n")
"""How the client ends without arguments."""


class ClientHook(BuildHookInterface):  # type: ignore[type-arg] # its configuration has no type
    """Adds the client to the wheel."""

    PLUGIN_NAME = "custom"
    _folder = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and let the wheel name its platform; an editable installation has no client."""
        if version == "editable":
            return
        self._folder = tempfile.mkdtemp(prefix="pipehandler-client-")
        program = os.path.join(self._folder, "client")
        own = os.environ.get("CC")
        for compiler in [own] if own else COMPILERS:
            command = shlex.split(compiler)
            if not shutil.which(command[0]):
                continue
            problem = compile_client([*command, *FLAGS], os.path.join(self.root, SOURCE), program)
            if problem:
                self.app.display_warning(f"no hand-over client with {compiler}: {problem}")
                continue
            machine = sysconfig.get_platform().partition("-")[2].replace("-", "_").replace(".", "_")
            everywhere = f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"
            build_data["force_include"][program] = PATH
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{everywhere if '-static' in command else f'linux_{machine}'}"
            return
        self.app.display_warning("this wheel has no hand-over client (docs/resident-workers.md); it needs none")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        shutil.rmtree(self._folder, ignore_errors=True)


def compile_client(command: list[str], source: str, program: str) -> str:
    """Compile `source` and try the program; return what is wrong with the compiler or the program, or ""."""
    try:
        built = subprocess.run(
            [*command, source, "-o", program], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
        if built.returncode:
            return f"status {built.returncode}: {built.stderr.decode(errors='replace').strip().partition(chr(10))[0]}"
        os.chmod(program, 0o755)
        tried = subprocess.run([program], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    found = tried.returncode, tried.stdout
    return "" if found == _REFUSAL else f"the program left with {found}"
