"""`pipehandler web`: the inbox page."""

import logging
import sys
from contextlib import closing, suppress

import click

from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_CONFIG, EX_UNAVAILABLE
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import load
from pipehandler.settings.extras import require
from pipehandler.settings.page import problem
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.shards import shards

from .command import Failure, reported_errors
from .group import Group
from .web_export import export
from .web_key import COMMANDS

_CONNECT_SECONDS = 2


@click.group("web", cls=Group, invoke_without_command=True)
@click.option(
    "--listen", metavar="ADDRESS", help="Listen there instead of web.listen: HOST:PORT, or the path of a Unix socket."
)
@click.pass_context
def web(context: click.Context, listen: str | None) -> None:
    """Serve the inbox page: mail in the browser, as it arrives.

    Until SIGTERM, with the section [web] of the configuration. Visitors get addresses of web.domains if web.public is true; with a key
    of `pipehandler web key` it is the mail viewer of a team.
    """
    if context.invoked_subcommand is not None:
        return
    with reported_errors():
        require("web", "pipehandler web")
        config = load(context.obj["config"])
        conninfo = context.obj["conninfo"]
        if conninfo is not None:
            config = config._replace(web=config.web._replace(conninfo=conninfo))
        if listen is not None:
            config = config._replace(web=config.web._replace(listen=listen))
        if reason := problem(config):
            raise Failure(reason, EX_CONFIG)
        _refuse_shards(config)
    from pipehandler.web.articles import ArticleError
    from pipehandler.web.limits import ProxyError
    from pipehandler.web.server import WebError, serve

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    try:
        with reported_errors():
            serve(config, lambda line: say(line, err=True))
    except (ArticleError, ProxyError) as error:
        raise Failure(str(error), EX_CONFIG) from error
    except WebError as error:
        raise Failure(str(error), EX_UNAVAILABLE) from error


def _refuse_shards(config: Config) -> None:
    """Raise Failure for the proxy of a sharded database. One that is away is not waited for: visitors get 503 until it is back."""
    with (
        closing(Store(config.web.conninfo or config.database.conninfo, _CONNECT_SECONDS)) as store,
        suppress(StoreError),
    ):
        if shards(store):
            raise Failure(
                "the inbox page does not work on a sharded database yet; give it a database of its own (web.conninfo), and let"
                " Postfix deliver the page's domains there with a second configuration (docs/scaling.md)",
                EX_CONFIG,
            )


for command in (*COMMANDS, export):
    web.add_command(command)
