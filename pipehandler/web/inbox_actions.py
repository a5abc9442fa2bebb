"""What a visitor does with an inbox: add time, end it, delete mail, choose another one."""

from datetime import timedelta

from starlette.responses import Response

from pipehandler.store.inbox_errors import LifetimeReached

from . import keys
from .answers import answer, see_other
from .pages import current_key, done, no_inbox, seconds_of, set_keys
from .rows import inbox_json, name_of
from .site import Site
from .visit import Visit


async def extend(site: Site, visit: Visit) -> Response:
    """Add time, also within the grace of an inbox that has ended."""
    key = await current_key(site, visit)
    if key is None:
        return no_inbox(visit)
    home = site.inboxes.home(key)
    before = await home.inbox(key)
    seconds = seconds_of("ttl", visit.field("ttl")) or site.settings.extension
    try:
        after = await home.extend(key, timedelta(seconds=seconds))
    except LifetimeReached:
        after = before
    return done(visit, "extended" if after.expires_at != before.expires_at else "longest", after)


async def end(site: Site, visit: Visit) -> Response:
    """Delete the inbox with its mail and its keys; with `keep`, only end it, so that it can be brought back."""
    key = await current_key(site, visit)
    if key is None:
        return no_inbox(visit)
    if visit.field("keep"):
        return done(visit, "ended", await site.inboxes.home(key).expire(key))
    await site.inboxes.home(key).remove(key)
    site.mail_views.forget_inbox(key)
    response = done(visit, "deleted", to="home")
    if not visit.bearer:
        set_keys(site, visit, response, keys.without(visit.keys, key))
    return response


async def remove_mail(site: Site, visit: Visit) -> Response:
    """Delete messages: `delivery`, as often as there are messages."""
    key = await current_key(site, visit)
    if key is None:
        return no_inbox(visit)
    wanted = [
        int(each) for each in visit.form.get("delivery", []) if each.isascii() and each.isdigit() and len(each) < 19
    ]
    removed = await site.inboxes.home(key).remove_mail(key, wanted) if wanted else 0
    site.mail_views.forget_mail(frozenset(wanted))
    site.databases.home(key).hub.look_again()
    return answer({"removed": removed}) if visit.as_json else see_other(visit, "inbox", "removed")


async def switch(site: Site, visit: Visit) -> Response:
    """Make another of the browser's inboxes the current one: `lease`."""
    found = await site.inboxes.inboxes(visit.keys)
    for key, inbox in found.inboxes.items():
        if name_of(inbox) == visit.field("lease"):
            response = (
                answer(inbox_json(inbox))
                if visit.as_json
                else see_other(visit, "inbox", "switched", inbox=name_of(inbox))
            )
            kept = [each for each in visit.keys if each in found.inboxes or each in found.away]
            set_keys(site, visit, response, keys.with_current(kept, key))
            return response
    for error in found.away.values():
        raise error
    return no_inbox(visit)
