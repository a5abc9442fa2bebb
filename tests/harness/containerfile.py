"""A Containerfile without a container engine: its instructions are carried out in a folder, by chroot(1) and namespaces.

Containerfile(5) describes the instructions; those that the example uses are supported, and any other one is an error.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_ROOTS = Path("/var/cache/pipehandler")
_IMAGES = {"docker.io/library/debian:12-slim": "bookworm", "docker.io/library/debian:13-slim": "trixie"}
"""The images that can be made here, with the release of Debian."""

_SLIM = "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n"
"""What such an image leaves out of packages."""

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
    """An image in `folder`: the layer above that of its base. entrypoint: the words of ENTRYPOINT. base: another image than FROM
    names."""

    def __init__(self, folder: Path, path: Path, context: Path, base: str = "") -> None:
        self.entrypoint: list[str] = []
        self.volumes: list[str] = []
        self._folder, self._lower, self._directory = folder, Path(), "/"
        for name in ("layer", "work", "root"):
            (folder / name).mkdir(parents=True)
        for instruction in instructions(path):
            self._carry_out(Instruction("FROM", base) if base and instruction.name == "FROM" else instruction, context)

    @property
    def layers(self) -> list[Path]:
        """Its layers, the uppermost first."""
        return [self._folder / "layer", self._lower]

    def _carry_out(self, instruction: Instruction, context: Path) -> None:
        name, text = instruction
        match name:
            case "FROM":
                self._lower = _root(_IMAGES[text])
                settings = self._folder / "layer/etc/dpkg/dpkg.cfg.d"
                settings.mkdir(parents=True)
                (settings / "docker").write_text(_SLIM)
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
            _inside(self._folder, [self._lower], script, *words),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)}: {done.stdout}{done.stderr}")


class Container:
    """A container of an image: what it changes is in `folder`, except for the volumes, folders in `volumes` that another container
    may use as well. A volume that is not there yet begins as what the image has in its place, as an engine does it."""

    def __init__(self, image: Image, folder: Path, volumes: Path) -> None:
        self._image, self._folder, self._volumes = image, folder, volumes
        for name in ("layer", "work", "root"):
            (folder / name).mkdir(parents=True)

    def start(self, script: str, *words: str) -> list[str]:
        """The command that runs a shell script in namespaces of its own, with the root of the container at $ROOT; `words` are its
        arguments."""
        mount = "".join(
            f'[ -e "{self._volume(path)}" ] || cp -a "$ROOT{path}" "{self._volume(path)}"\n'
            f'mount --bind "{self._volume(path)}" "$ROOT{path}"\n'
            for path in self._image.volumes
        )
        return _inside(self._folder, self._image.layers, mount + script, *words)

    def _volume(self, path: str) -> Path:
        return self._volumes / path.strip("/").replace("/", "-")


def _inside(folder: Path, lower: Sequence[Path], script: str, *words: str) -> list[str]:
    """The command that runs a script in namespaces of its own, with an overlay at $ROOT whose changes are in `folder`."""
    mount = f"lowerdir={':'.join(map(str, lower))},upperdir={folder}/layer,workdir={folder}/work"
    head = f"""set -eu
ROOT={folder}/root
mount -t overlay overlay -o {mount} "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc"
cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/run/certificates"
"""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", head + script, "sh", *words]


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
