"""An installation that a test may damage: the interpreter, its library and the virtual environment, as links into the
real ones.

Only the folders on the path of a damaged file are real, so it costs only a few links.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipehandler.postfix.templates import PACKAGES

from . import account
from .handler import ENVIRONMENT, Handler


class Installation:
    """The copy in `folder`. python: its interpreter; packages: its site-packages."""

    def __init__(self, folder: Path) -> None:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        base = folder / "base"
        (base / "bin").mkdir(parents=True)
        (base / "lib").mkdir()
        shutil.copy(os.path.realpath(sys.executable), base / "bin" / version)
        (base / "lib" / version).symlink_to(sysconfig.get_path("stdlib"))
        environment = folder / "environment"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(base / "bin" / version)
        (environment / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\ninclude-system-site-packages = false\n")
        self.packages = environment / "lib" / version / "site-packages"
        self.packages.parent.mkdir(parents=True)
        self.packages.symlink_to(PACKAGES)
        self.folder = folder
        self.library = base / "lib" / version
        self.python = environment / "bin" / "python"

    def command(self, command: list[str]) -> list[str]:
        """A command of the handler, with this interpreter and these packages."""
        own = {sys.executable: str(self.python), PACKAGES: str(self.packages)}
        return [own.get(word, word) for word in command]

    def loaded(self, handler: Handler, command: list[str], message: bytes) -> list[Path]:
        """The files below this installation that a delivery reads, in order."""
        trace = handler.folder / "loaded"
        strace = ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=openat", "-o", str(trace)]
        handler.run([*strace, *self.command(command)], message)
        found = re.findall(
            r'openat\(AT_FDCWD, "([^"]+)", O_RDONLY\|O_CLOEXEC\) = \d', trace.read_text("ascii", "replace")
        )
        trace.unlink()
        inside = dict.fromkeys(Path(each) for each in found if each.startswith(f"{self.folder}/"))
        return [each for each in inside if each.is_file()]

    def delivers(self) -> bool:
        """Whether the interpreter starts."""
        command = [str(self.python), "-I", "-S", "-c", ""]
        return subprocess.run(account.command(command), env=ENVIRONMENT, capture_output=True).returncode == 0

    @contextmanager
    def damaged(self, file: Path, content: bytes | None, mode: int = 0o644) -> Iterator[None]:
        """For the duration of the context, `file` has other content, is missing (None), or has another mode."""
        for folder in reversed(file.relative_to(self.folder).parents):
            self._make_real(self.folder / folder)
        original = file.with_name(f"{file.name}.original")
        file.rename(original)
        if content is not None:
            file.write_bytes(content)
            file.chmod(mode)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            original.rename(file)

    def _make_real(self, folder: Path) -> None:
        """Turn a link to a folder into a folder of links."""
        if folder.is_symlink():
            target = folder.resolve()
            folder.unlink()
            folder.mkdir()
            for each in target.iterdir():
                (folder / each.name).symlink_to(each)
