"""An environment that can be replaced, with its own package."""

import os
import shutil
import sys
from pathlib import Path

from pipehandler.postfix.templates import PACKAGES

from .handler import Handler


class Upgradable:
    """An environment behind a link, as docs/upgrade.md has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = folder / "environment"
        self.version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.program = self.link / "bin" / "pipehandler"
        self.new("environment-1")
        self.link.symlink_to("environment-1")

    def new(self, name: str) -> Path:
        """Create an environment with its own package; everything else is linked. Returns its package."""
        there = self.folder / name
        packages = there / "lib" / self.version / "site-packages"
        packages.mkdir(parents=True)
        (there / "bin").mkdir()
        (there / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", there)
        for package in Path(PACKAGES).iterdir():
            if package.name != "pipehandler":
                (packages / package.name).symlink_to(package)
        shutil.copytree(Path(PACKAGES) / "pipehandler", packages / "pipehandler")
        script = there / "bin" / "pipehandler"
        script.write_text(f"#!{there}/bin/python\nfrom pipehandler.__main__ import main\n\nmain()\n")
        script.chmod(0o755)
        return packages / "pipehandler"

    def exchange(self, name: str) -> None:
        """Point the link to another environment, atomically."""
        (self.folder / "new").symlink_to(name)
        os.replace(self.folder / "new", self.link)

    def command(self, handler: Handler, **options: str) -> list[str]:
        """The command of master.cf, through the link."""
        own = {sys.executable: f"{self.link}/bin/python", PACKAGES: f"{self.link}/lib/{self.version}/site-packages"}
        return [own.get(word, word) for word in handler.command(**options)]
