"""The paths of the page, by the names that templates use: `url('message', delivery=7)`."""

from urllib.parse import quote, urlencode

PATHS = {
    "home": "/{lang}/",
    "create": "/{lang}/inbox",
    "inbox": "/{lang}/inbox",
    "rows": "/{lang}/rows",
    "events": "/{lang}/events",
    "message": "/{lang}/m/{delivery}",
    "mail_html": "/{lang}/m/{delivery}/html",
    "print": "/{lang}/m/{delivery}/print",
    "headers": "/{lang}/m/{delivery}/headers",
    "raw": "/{lang}/m/{delivery}/raw",
    "eml": "/{lang}/m/{delivery}.eml",
    "attachment": "/{lang}/m/{delivery}/part/{ordinal}",
    "zip": "/{lang}/m/{delivery}.zip",
    "remove_mail": "/{lang}/remove",
    "extend": "/{lang}/extend",
    "end": "/{lang}/end",
    "switch": "/{lang}/switch",
    "share": "/{lang}/share",
    "unshare": "/{lang}/unshare",
    "key": "/{lang}/key",
    "open": "/{lang}/open",
    "language": "/{lang}/language",
    "abuse": "/{lang}/abuse",
    "static": "/{lang}/{name}",
    "blog": "/{lang}/blog",
    "article": "/{lang}/blog/{slug}",
    "openapi": "/openapi.json",
    "manifest": "/{lang}/manifest.webmanifest",
}
"""Each path; further parameters become the query."""


def path_of(page: str, lang: str, /, **parameters: object) -> str:
    """Return the path of a page in a language. Raises KeyError for a page that there is not."""
    path = PATHS[page].replace("{lang}", quote(lang, safe=""))
    query = {}
    for key, value in parameters.items():
        place = f"{{{key}}}"
        if place in path:
            path = path.replace(place, quote(str(value), safe=""))
        elif value is not None:
            query[key] = value
    return f"{path}?{urlencode(query)}" if query else path
