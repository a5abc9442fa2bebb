"""`pipehandler web export`: the static pages as files."""

import time
from pathlib import Path

import click

from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_CONFIG
from pipehandler.settings.config_file import load
from pipehandler.settings.extras import require
from pipehandler.settings.page import problem

from .command import Failure, counted, reported_errors


@click.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.pass_context
def export(context: click.Context, folder: Path) -> None:
    """Write the pages that are the same for everyone into FOLDER, for a web server or a CDN.

    About, help, privacy, terms, contact and the articles in each language, the sitemap, robots.txt, and the styles and scripts
    that they use. Files that have not changed keep their time; those of an earlier export that are gone are removed. No database
    is needed.
    """
    started = time.monotonic()
    with reported_errors():
        require("web", "pipehandler web export")
        config = load(context.obj["config"])
        if reason := problem(config):
            raise Failure(reason, EX_CONFIG)
    from pipehandler.web.articles import ArticleError
    from pipehandler.web.export import export as write
    from pipehandler.web.export import files_of

    try:
        files = files_of(config.web)
    except ArticleError as error:
        raise Failure(str(error), EX_CONFIG) from error
    try:
        written, removed = write(files, folder)
    except OSError as error:
        raise Failure(f"{error.filename or folder}: {error.strerror or error}", EX_CANTCREAT) from error
    pages = sum(name.endswith(".html") for name in files)
    others = counted(len(files) - pages, "other file")
    seconds = time.monotonic() - started
    say(f"{folder}: {counted(pages, 'page')} and {others} in {seconds:.2f} s; {written} written, {removed} removed")
