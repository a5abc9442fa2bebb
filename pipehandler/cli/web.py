"""`pipehandler web`: the inbox page."""

import logging
import sys

import click

from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_CONFIG, EX_UNAVAILABLE
from pipehandler.settings.config_file import load
from pipehandler.settings.extras import require
from pipehandler.settings.page import problem

from .command import Failure, reported_errors
from .group import Group
from .web_export import export
from .web_key import COMMANDS


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


for command in (*COMMANDS, export):
    web.add_command(command)
