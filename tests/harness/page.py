"""The templates of the page with values as the server gives them, without the server."""

from collections.abc import Mapping
from functools import cache

from jinja2 import Environment

from pipehandler.settings.config import Web
from pipehandler.web.assets import Assets
from pipehandler.web.render import Templates

SETTINGS = Web(
    hosts=("inbox.example.com",),
    public=True,
    domains=("example.com", "example.org"),
    operator="Example & Sons",
    contact="hello@example.com",
    postal_address="1 Example Street",
)

ASSETS = Assets()


@cache
def templates(settings: Web = SETTINGS) -> Templates:
    """Return the templates of the package, as a site with these settings has them."""
    return Templates(settings, ASSETS, lambda: settings.domains)


def environment() -> Environment:
    """Return an environment with the templates of the package."""
    return templates().environment


def sample(code: str, settings: Web = SETTINGS) -> Mapping[str, object]:
    """Return what every template gets, for a visitor without an inbox."""
    return templates(settings).common(code)
