"""Templates and their context: what every page has, beside what its own code passes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from pipehandler.settings.config import Web

from . import formats, languages, names
from .assets import Assets
from .links_to import path_of

_PUBLIC = (
    "public",
    "ttl",
    "extension",
    "max_life",
    "grace",
    "operator",
    "contact",
    "postal_address",
    "max_messages",
    "max_octets",
)
"""The settings that pages may show."""


class Templates:
    """The templates of the package, and those of the operator's design in their place or beside them."""

    def __init__(self, settings: Web, assets: Assets, domains: Callable[[], tuple[str, ...]]) -> None:
        loaders: list[BaseLoader] = [PackageLoader("pipehandler.web")]
        if settings.design:
            loaders.insert(0, FileSystemLoader(Path(settings.design) / "templates"))
        # A design is read once, as everything here: a change is in use after a restart.
        self.environment = Environment(
            loader=ChoiceLoader(loaders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        languages.install(self.environment)
        formats.install(self.environment)
        names.install(self.environment)
        self._assets = assets
        self._domains = domains
        self._settings = SimpleNamespace(
            **{name: getattr(settings, name) for name in _PUBLIC}, abuse=settings.abuse or settings.contact
        )

    def common(self, lang: str) -> dict[str, Any]:
        """The context of a page that is the same for every visitor."""
        return {
            "lang": lang,
            "direction": languages.direction(lang),
            "languages": languages.LANGUAGES,
            "url": partial(_url, lang),
            "asset": self._assets.url,
            "settings": self._settings,
            "domains": self._domains(),
            "inbox": None,
            "inboxes": [],
            "notice": "",
            "here": "",
            "alternates": {},
            "indexed": False,
        }

    def render(self, name: str, context: Mapping[str, Any]) -> str:
        """Return the text of a template."""
        return self.environment.get_template(name).render(context)


def _url(here: str, page: str, /, lang: str = "", **parameters: object) -> str:
    return path_of(page, lang or here, **parameters)
