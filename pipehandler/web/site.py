"""What the pages of one process share: the configuration, the database, the streams, the templates, what is rendered once."""

from collections import Counter

from pipehandler.settings.config import Config

from .all_inboxes import AllInboxes
from .assets import Assets
from .guard import Hosts
from .limits import Opened, Streams, TrustedProxies
from .mail_view import MailViews
from .render import Templates
from .static_pages import origin_of, site_pages


class Site:
    """The page of one process. Raises what its parts raise for a configuration that cannot be used: ProxyError, ArticleError.

    counts: how often something happened, by the names of monitor/web_status.py.
    """

    def __init__(self, config: Config) -> None:
        settings = config.web
        conninfo = settings.conninfo or config.database.conninfo
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.hosts = Hosts(settings.hosts)
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.opened = Opened(settings.opened_per_hour)
        self.streams = Streams(settings)
        self.inboxes = AllInboxes(conninfo, settings.connections)
        self.databases = self.inboxes.databases
        self.mail_views = MailViews(self.inboxes, self.counts)
        self.assets = Assets(settings.design)
        self.domains: tuple[str, ...] = settings.domains
        self.templates = Templates(settings, self.assets, lambda: self.domains)
        self.origin = origin_of(settings)
        self.fixed = site_pages(settings, self.templates)
