"""The files that travel with the package: the SQL for a DBA, the examples for Postfix."""

from importlib.resources import files
from importlib.resources.abc import Traversable


def data_files(folder: str) -> Traversable:
    """The folder "sql" or "postfix": inside the installed package, or beside it in a checkout."""
    package = files("pipehandler")
    installed = package / "share" / folder
    return installed if installed.is_dir() else package.joinpath("..", folder)
