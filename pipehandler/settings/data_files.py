"""The SQL files, which are shipped with the package and can be read by a DBA."""

from importlib.resources import files
from importlib.resources.abc import Traversable


def data_files(folder: str) -> Traversable:
    """Return a folder such as "sql": that in the installed package, or the one beside the package in a checkout."""
    package = files("pipehandler")
    installed = package / "share" / folder
    return installed if installed.is_dir() else package.joinpath("..", folder)
