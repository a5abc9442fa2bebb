"""What every request passes: the name of the page, where a form comes from, and the headers of each kind of answer."""

import pytest
from harness.database import Database
from harness.inboxes import send
from harness.web import JSON, SAME_SITE, Visitor, WebServer

from pipehandler.web.headers import HEADERS, response_headers

HTML_MAIL = (
    b"From: Ann <ann@example.org>\nSubject: hello\nMessage-ID: <%s@example.org>\nMIME-Version: 1.0\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n"
    b"<p>Hello<img src=https://elsewhere.example/x.png>\n"
    b'--b\nContent-Type: image/png; name="a.png"\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n'
    b"iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC\n"
    b"--b\nContent-Type: text/csv; name=t.csv\nContent-Disposition: attachment\n\na;b\n--b--\n"
)


@pytest.mark.parametrize(
    "host", ["evil.example", "inbox.example.evil.example", "", "inbox.example, evil.example", "10.0.0.1"]
)
def test_another_name(page: WebServer, host: str) -> None:
    """A name that is not ours gets 421 and nothing of the page, on every path (DNS rebinding)."""
    for path in ("/", "/en/", "/en/inbox", "/en/events", "/static/inbox.js", "/openapi.json"):
        refused = page.request("GET", path, {"Host": host or "."})
        assert (refused.status, refused.text) == (421, "This site has another name.\n")


@pytest.mark.parametrize("host", ["inbox.example", "INBOX.example:8443", "localhost:1", "127.0.0.1", "[::1]:80"])
def test_our_names(page: WebServer, host: str) -> None:
    """The configured name, and those of this machine, in any case and with any port."""
    assert page.request("GET", "/en/", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Sec-Fetch-Site": "", "Origin": "https://inbox.example.evil.example"},
        {"Sec-Fetch-Site": ""},
    ],
    ids=["cross-site", "same-site", "origin", "null", "suffix", "silent"],
)
def test_form_of_another_site(visitor: Visitor, headers: dict[str, str]) -> None:
    """A POST with a cookie that another site sent, or that says nothing of where it comes from, is refused and does nothing."""
    visitor.open()
    before = visitor.inbox()
    for path in ("inbox", "extend", "end", "remove", "share", "unshare", "switch", "open", "language"):
        refused = visitor.post(path, {"keep": "yes"}, headers)
        assert refused.status == 403
        assert "set-cookie" not in refused.headers
    after = visitor.inbox()
    assert (after["expires_at"], after["state"]) == (before["expires_at"], "active")


def test_form_of_ours(visitor: Visitor) -> None:
    """Sec-Fetch-Site or Origin is enough; a program with its key in Authorization needs neither."""
    visitor.open()
    own = {"Sec-Fetch-Site": "", "Origin": "https://inbox.example"}
    assert visitor.post("extend", headers=own).status == 303
    assert visitor.post("extend", headers={"Sec-Fetch-Site": "same-origin", "Origin": "null"}).status == 303
    program = {"Authorization": f"Bearer {visitor.key}", "Sec-Fetch-Site": "", "Cookie": ""}
    assert visitor.post("extend", headers=program).status == 200


def test_only_a_post_opens(visitor: Visitor) -> None:
    """No GET opens an inbox: crawlers follow links."""
    assert visitor.get("inbox").status == 303
    assert visitor.get("inbox?name=anna&domain=tmp.example").status == 303
    assert not visitor.cookies


def test_headers_of_each_kind(visitor: Visitor, web_database: Database) -> None:
    """Each answer has exactly the headers of its kind."""
    visitor.open()
    address = visitor.inbox()["address"]
    (delivery,) = send(web_database, address, raw=HTML_MAIL % visitor.key.encode())
    kinds = {
        "inbox": response_headers("page"),
        f"m/{delivery}": response_headers("page"),
        "key": response_headers("page"),
        "nothing/at/all": response_headers("page"),
        f"m/{delivery}/html": response_headers("mail"),
        f"m/{delivery}/html?images=1": response_headers("mail_with_images"),
        f"m/{delivery}/print": response_headers("print"),
        f"m/{delivery}/print?images=1": response_headers("print_with_images"),
        f"m/{delivery}.eml": response_headers("attachment", file_name="hello.eml"),
        f"m/{delivery}.zip": response_headers("attachment", file_name="hello.zip"),
        f"m/{delivery}/part/1": response_headers("attachment", file_name="a.png"),
        f"m/{delivery}/part/1?thumbnail=1": response_headers("thumbnail", media_type="image/png"),
    }
    for path, expected in kinds.items():
        got = visitor.get(path)
        assert {name: got.headers.get(name.lower()) for name in expected} == expected, path
    json = visitor.get("inbox", JSON).headers
    assert {name: json[name.lower()] for name in HEADERS["json"]} == dict(HEADERS["json"])


def test_what_is_no_image_is_no_thumbnail(visitor: Visitor, web_database: Database) -> None:
    """A file is shown only if its octets are an image, whatever it calls itself."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"], raw=HTML_MAIL % visitor.key.encode())
    assert visitor.get(f"m/{delivery}/part/2?thumbnail=1", {"Sec-Fetch-Dest": "image"}).status == 404
    assert visitor.get(f"m/{delivery}/part/9", JSON).status == 404


def test_no_inline_script_or_style(visitor: Visitor, web_database: Database) -> None:
    """The pages have no inline script, style or handler, which their policy would block."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"], raw=HTML_MAIL % visitor.key.encode())
    for path in (
        "/en/",
        "inbox",
        f"m/{delivery}",
        f"m/{delivery}/headers",
        f"m/{delivery}/raw",
        "key",
        "open",
        "about",
    ):
        text = visitor.get(path).text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/')


def test_cookie_flags(page: WebServer) -> None:
    """Behind HTTPS the cookie belongs to this host alone; over HTTP on loopback, browsers take the other one."""
    opened = Visitor(page).post("inbox")
    cookie = opened.headers["set-cookie"]
    assert cookie.startswith("__Host-inbox=")
    assert cookie.partition("; ")[2] == "Path=/; Max-Age=172800; HttpOnly; SameSite=Lax; Secure"
    direct = Visitor(page).post(
        "inbox", headers={"Host": "localhost", "X-Forwarded-Proto": "", "Sec-Fetch-Site": "same-origin"}
    )
    assert direct.headers["set-cookie"].startswith("inbox=")
    assert "Secure" not in direct.headers["set-cookie"]


def test_bodies(visitor: Visitor) -> None:
    """A body that is too long, or not what it says, is refused."""
    for body, media_type in (
        (b"name=" + b"x" * 70_000, "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"x", "multipart/form-data"),
    ):
        refused = visitor.server.request(
            "POST", "/en/inbox", {"Content-Type": media_type, "Sec-Fetch-Site": "same-origin", **JSON}, body
        )
        assert (refused.status, refused.json["error"]) == (400, "bad_request")


@pytest.mark.parametrize("digits", [18, 19, 30, 5_000], ids=lambda digits: f"{digits} digits")
def test_numbers_that_nothing_has(visitor: Visitor, web_database: Database, digits: int) -> None:
    """A number in a path, however long, is no fault of ours: nothing is there."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"], raw=HTML_MAIL % visitor.key.encode())
    before = visitor.server.counts()["faults"]
    for path in ("m/{}", "m/{}/html", "m/{}.eml", f"m/{delivery}/part/{{}}"):
        assert visitor.get(path.format("9" * digits), JSON).status == 404
    assert visitor.server.counts()["faults"] == before


def test_static_files(visitor: Visitor) -> None:
    """Names have a digest, so browsers keep them for a year; with gzip if they can read it."""
    path = visitor.get("/en/").text.partition('src="')[2].partition('"')[0]
    plain, packed = visitor.get(path), visitor.get(path, {"Accept-Encoding": "gzip"})
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body)
    assert visitor.get(path.replace(".", ".0", 1)).status == 404
    assert visitor.get("/static/../app.py").status == 404


def test_languages(visitor: Visitor) -> None:
    """/ leads to the visitor's language, the choice is kept, and a language that we do not have is 404."""
    assert visitor.get("/", {"Accept-Language": "de-AT, en;q=0.5"}).headers["location"] == "/de/"
    assert visitor.get("/xx/").status == 404
    chosen = visitor.post("language", {"language": "ko", "path": "/inbox?q=a"})
    assert (chosen.status, chosen.headers["location"]) == (303, "/ko/inbox?q=a")
    assert visitor.get("/", {"Accept-Language": "de"}).headers["location"] == "/ko/"
    for path in ("//evil.example/", "/\\evil.example", "https://evil.example/", "/\tevil"):
        assert visitor.post("language", {"language": "de", "path": path}).headers["location"].startswith("/de/")
    assert visitor.post("language", {"language": "xx", "path": "/"}).status == 400
    # As the page that nothing is under says where it is.
    where = {"language": "ko", "path": "/없음/ü?a=%EA%B0%80"}
    assert visitor.post("language", where).headers["location"] == "/ko/%EC%97%86%EC%9D%8C/%C3%BC?a=%EA%B0%80"


def test_fixed_pages(visitor: Visitor) -> None:
    """They have an ETag, and an answer without content for who has them."""
    page = visitor.get("about")
    assert page.status == 200
    assert visitor.get("about", {"If-None-Match": page.headers["etag"]}).status == 304
    assert visitor.get("/robots.txt").status == 200
    assert b"<urlset" in visitor.get("/sitemap.xml").body


def test_methods(visitor: Visitor) -> None:
    """A method that a path does not have is 405, with all that it has."""
    for method, path, allowed in (
        ("OPTIONS", "/en/inbox", "GET, HEAD, POST"),
        ("PUT", "/en/open", "GET, HEAD, POST"),
        ("DELETE", "/en/m/1", "GET, HEAD"),
        ("POST", "/en/rows", "GET, HEAD"),
        ("POST", "/en/about", "GET, HEAD"),
    ):
        refused = visitor.server.request(method, path, SAME_SITE | JSON)
        assert (refused.status, refused.headers["allow"]) == (405, allowed), path
    for path in ("inbox", "rows", "events"):
        refused = visitor.get(path, JSON)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer"), path


def test_seconds_that_are_no_number(visitor: Visitor) -> None:
    """An error says so; nothing is opened or extended by another time than the one that was meant."""
    for wrong in ("x", "-5", "1.5", "1e3", "9999999999", "٣"):
        assert visitor.post("inbox", {"ttl": wrong}, JSON).json["message"].startswith("ttl is ")
    visitor.open()
    before = visitor.inbox()
    for action in ("extend", "share"):
        assert visitor.post(action, {"ttl": "x"}, JSON).status == 400
    assert visitor.inbox()["expires_at"] == before["expires_at"]
    answer = visitor.get(f"rows?after={before['newest']}&wait=soon", JSON)
    assert (answer.status, answer.json["message"]) == (400, "wait is 'soon'; expected a whole number of seconds")
    assert visitor.get(f"rows?after={before['newest']}&wait=0", JSON).json["rows"] == []
