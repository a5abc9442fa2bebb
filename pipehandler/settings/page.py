"""What the configuration of the inbox page must have beyond the bounds of each key.

Deliveries do not look at it: mail must not wait because of the page. `pipehandler web` refuses to start, and `check` reports it.
"""

from .config import Config


def problem(config: Config) -> str:
    """Return why the page cannot be served with this configuration, and what to set; "" if it can."""
    web = config.web
    if web.public and not web.hosts:
        return 'web.public = true needs web.hosts, such as hosts = ["inbox.example.com"]'
    if web.public and not web.domains:
        return 'web.public = true needs web.domains, such as domains = ["example.com"]'
    if web.public and config.recipients.policy != "known":
        return (
            f'web.public = true needs recipients.policy = "known" (it is "{config.recipients.policy}"),'
            " or mail to an address that ended would be stored without an inbox"
        )
    if web.public and not web.trusted_proxies:
        return (
            "web.public = true needs web.trusted_proxies, such as 127.0.0.1: without the addresses of its visitors,"
            " the page would count them all as one"
        )
    if web.max_life < web.ttl:
        return f"web.max_life = {web.max_life} is shorter than web.ttl = {web.ttl}; it must be at least as long"
    return ""
