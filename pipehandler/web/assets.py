"""The files of the page's design: scripts, styles, icons. They are read once, and their names carry a digest of their content, so
that browsers keep them for a year and still get a new one at once.
"""

import gzip
import hashlib
import mimetypes
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

PREFIX = "/static/"

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_COMPRESSIBLE = (".js", ".css", ".svg")


class Asset(NamedTuple):
    """A file as it is served. compressed: with gzip, if that is smaller."""

    path: str
    media_type: str
    body: bytes
    compressed: bytes | None


class Assets:
    """All files of the package's folder static/, and those of the operator's design in their place or beside them."""

    def __init__(self, design: str = "") -> None:
        found = _read(files("pipehandler.web") / "static", "")
        if design:
            found |= _read(Path(design) / "static", "")
        named = {name: _asset(name, body) for name, body in found.items()}
        self._paths = {name: asset.path for name, asset in named.items()}
        self._by_path = {asset.path: asset for asset in named.values()}

    def url(self, name: str) -> str:
        """Return the path of a file. Raises KeyError for one that there is not."""
        return self._paths[name]

    def __iter__(self) -> Iterator[Asset]:
        """Yield every file."""
        return iter(self._by_path.values())

    def at(self, path: str) -> Asset | None:
        """Return the file with this path."""
        return self._by_path.get(path)


def _read(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if not folder.is_dir():
        return found
    for each in folder.iterdir():
        name = f"{prefix}{each.name}"
        if each.is_dir():
            found |= _read(each, f"{name}/")
        elif not each.name.startswith("."):
            found[name] = each.read_bytes()
    return found


def _asset(name: str, body: bytes) -> Asset:
    stem, dot, ending = name.rpartition(".")
    digest = hashlib.sha256(body).hexdigest()[:12]
    path = f"{PREFIX}{stem}.{digest}.{ending}" if dot else f"{PREFIX}{name}.{digest}"
    media_type = _TYPES.get(f".{ending}") or mimetypes.guess_type(name)[0] or "application/octet-stream"
    compressed = gzip.compress(body, 9, mtime=0) if name.endswith(_COMPRESSIBLE) else body
    return Asset(path, media_type, body, compressed if len(compressed) < len(body) else None)
