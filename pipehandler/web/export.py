"""`pipehandler web export`: the pages that are the same for everyone, and the files of the design, as files for a CDN."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from pipehandler.settings.config import Web

from .assets import Assets
from .render import Templates
from .static_pages import site_pages

RECORD = ".exported"
"""The file of an export that lists what it wrote."""


def files_of(settings: Web) -> dict[str, bytes]:
    """Render what an export writes: the content of each file by its name in the folder. Raises ArticleError."""
    assets = Assets(settings.design)
    templates = Templates(settings, assets, lambda: settings.domains)
    pages = {page.file: page.body for page in site_pages(settings, templates).values()}
    return pages | {asset.path.removeprefix("/"): asset.body for asset in assets}


def export(files: Mapping[str, bytes], folder: Path) -> tuple[int, int]:
    """Write the files into a folder, which is made; return how many were written, and how many removed.

    A file that has the same content already keeps its time, so that a copy to a CDN transfers only what has changed. What an
    earlier export wrote, and this one does not have, is removed; other files are left alone. Nothing is written or removed
    through a link: the folder may belong to a web server. Raises OSError.
    """
    written = sum(_write(folder, name, content) for name, content in files.items())
    record = folder / RECORD
    earlier = record.read_text("utf-8", "replace").splitlines() if record.is_file() else []
    removed = sum(_remove(folder, name) for name in earlier if name not in files)
    _write(folder, RECORD, "".join(f"{name}\n" for name in sorted(files)).encode())
    return written, removed


def _link_above(folder: Path, name: str) -> Path | None:
    """The first folder below `folder`, on the way to the file `name`, that is a link; None if there is none."""
    parents = [folder / parent for parent in reversed(Path(name).parents[:-1])]
    return next((parent for parent in parents if parent.is_symlink()), None)


def _write(folder: Path, name: str, content: bytes) -> bool:
    """Replace a file as a whole, unless it has this content. Returns whether it was written."""
    if link := _link_above(folder, name):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(link))
    file = folder / name
    if file.is_file() and file.read_bytes() == content:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)  # of an export that was interrupted, or a link
    with draft.open("xb") as new:
        new.write(content)
    draft.replace(file)
    return True


def _remove(folder: Path, name: str) -> bool:
    """Remove a file of an earlier export, and its folders when nothing else is in them. Returns whether it was there."""
    file = folder / name
    if ".." in Path(name).parts or not file.is_relative_to(folder) or not file.is_file() or _link_above(folder, name):
        return False
    file.unlink()
    for parent in file.relative_to(folder).parents:
        if parent != Path() and not any((folder / parent).iterdir()):
            (folder / parent).rmdir()
    return True
