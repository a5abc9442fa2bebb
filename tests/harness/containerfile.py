"""A Containerfile without a container engine: its instructions are carried out in a folder, by chroot(1) and namespaces.

Containerfile(5) describes the instructions; those that the example uses are supported, and any other one is an error.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_ROOTS = Path("/var/cache/pipehandler")
_IMAGES = {"docker.io/library/debian:12-slim": "bookworm"}
"""The images that can be made here, with the release of Debian."""

_MIRROR = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Instruction(NamedTuple):
    """name: in capitals. text: what follows it, continued lines joined."""

    name: str
    text: str


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a file."""
    text = re.sub(r"^#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


class Image:
    """An image in `folder`: its layers, as an overlay that exists while a command runs. entrypoint: the words of ENTRYPOINT."""

    def __init__(self, folder: Path, path: Path, context: Path) -> None:
        self.entrypoint: list[str] = []
        self.volumes: list[str] = []
        self._folder, self._base, self._directory = folder, Path(), "/"
        for name in ("layer", "work", "root"):
            (folder / name).mkdir()
        for instruction in instructions(path):
            self._carry_out(instruction, context)

    def start(self, script: str, *words: str) -> list[str]:
        """The command that runs a shell script in namespaces of its own, with the root of the image at $ROOT; `words` are its
        arguments."""
        mount = f"lowerdir={self._base},upperdir={self._folder}/layer,workdir={self._folder}/work"
        head = f"""set -eu
ROOT={self._folder}/root
mount -t overlay overlay -o {mount} "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc"
cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/run/certificates"
"""
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", head + script, "sh", *words]

    def _carry_out(self, instruction: Instruction, context: Path) -> None:
        name, text = instruction
        match name:
            case "FROM":
                self._base = _root(_IMAGES[text])
            case "RUN":
                self._run('exec chroot "$ROOT" /bin/sh -euc "cd $1 && $2"', self._directory, text)
            case "COPY":
                *sources, target = text.split()
                # A folder is copied with what is in it, not as itself.
                for source in sources:
                    place = context / source
                    what = f"{place}/." if place.is_dir() else str(place)
                    folder = target if place.is_dir() or target.endswith("/") else os.path.dirname(target)
                    self._run('mkdir -p "$ROOT/$1"; cp -r "$2" "$ROOT/$3"', folder, what, target)
            case "WORKDIR":
                self._directory = text
            case "ENTRYPOINT":
                self.entrypoint = json.loads(text)
            case "VOLUME":
                self.volumes.append(text)
            case "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise ValueError(f"{name} is not supported: {text}")

    def _run(self, script: str, *words: str) -> None:
        # An engine passes on the settings of a proxy; those of pip are of the same kind here.
        settings = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        settings |= {name: os.environ[name] for name in ("PIP_INDEX_URL",) if name in os.environ}
        env = {**settings, "PATH": os.environ["PATH"], "HOME": "/root", "PIP_CERT": "/run/certificates"}
        done = subprocess.run(
            self.start(script, *words), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)}: {done.stdout}{done.stderr}")


def _root(release: str) -> Path:
    """A Debian of this release as small as an image, made once on this machine."""
    root = _ROOTS / f"debian-{release}-minbase"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        mirror = subprocess.run(_MIRROR, check=True, capture_output=True, text=True).stdout.split()[0]
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--keyring={_KEYS}", release, str(root), mirror],
            check=True,
            capture_output=True,
        )
        (root / "complete").touch()
    return root
