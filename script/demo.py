"""The demonstration behind script/demo: everything is real, in one folder, and gone at the end."""

import argparse
import base64
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import account
from harness.handler import Handler
from harness.mailhost import DOMAIN, MailHost, pipehandler
from harness.postgresql import PostgreSQL
from harness.web import WebServer

MEMBER = f"member@{DOMAIN}"
SENDER = "news@sender.example"

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)

KOREAN = (
    "From: =?EUC-KR?B?" + base64.b64encode("아침 소식".encode("euc-kr")).decode() + "?= <news@sender.example>\n"
    "To: member@example.com\n"
    "Subject: =?EUC-KR?B?" + base64.b64encode("오늘의 뉴스레터: 봄이 왔습니다".encode("euc-kr")).decode() + "?=\n"
    "Date: Mon, 02 Mar 2026 07:30:00 +0900\n"
    "Message-ID: <spring-2026@sender.example>\n"
    "List-Id: Morning news <morning.sender.example>\n"
    "MIME-Version: 1.0\n"
    'Content-Type: multipart/alternative; boundary="=_alternative"\n'
    "\n"
    "--=_alternative\n"
    "Content-Type: text/plain; charset=ks_c_5601-1987\n"
    "Content-Transfer-Encoding: 8bit\n"
    "\n"
    "안녕하세요. 봄이 왔습니다.\n"
    "--=_alternative\n"
    "Content-Type: text/html; charset=euc-kr\n"
    "Content-Transfer-Encoding: 8bit\n"
    "\n"
    "<html><body><h1>안녕하세요</h1><p>봄이 왔습니다.</p></body></html>\n"
    "--=_alternative--\n"
).encode("euc-kr")

ATTACHMENTS = (
    b"From: Anna <anna@sender.example>\n"
    b"To: member@example.com\n"
    b"Subject: The picture, and a table\n"
    b"Date: Tue, 03 Mar 2026 10:00:00 +0100\n"
    b"Message-ID: <picture@sender.example>\n"
    b"MIME-Version: 1.0\n"
    b"Content-Type: multipart/mixed; boundary=mixed\n"
    b"\n"
    b"--mixed\n"
    b"Content-Type: text/plain; charset=utf-8\n"
    b"\n"
    b"Here they are.\n"
    b"--mixed\n"
    b"Content-Type: image/png\n"
    b"Content-Disposition: attachment; filename*=UTF-8''f%C3%BCr%20dich.png\n"
    b"Content-Transfer-Encoding: base64\n"
    b"\n" + base64.encodebytes(PICTURE) + b"--mixed\n"
    b'Content-Type: text/csv; name="=?iso-8859-1?Q?=FCbersicht=2Ecsv?="\n'
    b"Content-Disposition: attachment\n"
    b"\n"
    b"a;b\n1;2\n"
    b"--mixed--\n"
)

BROKEN = (
    b"Subject: \xc3\x28 \xff\xfe =?no-such-charset?B?/////w==?= =?utf-8?q?never_ends\n"
    b"From: (((\n"
    b"Date: the day after tomorrow\n"
    b"Message-ID: <<>>\n"
    b'Content-Type: multipart/mixed; boundary="nowhere\n'
    b"Content-Transfer-Encoding: rot13\n"
    b"\n"
    b"--nowhere\n"
    b"Content-Type: text/plain; charset=\x80\x81\n"
    b"Content-Transfer-Encoding: base64\n"
    b"\n"
    b"this is no base64 \x00\x01\x02 \xf0\x28\x8c\xbc\n"
)

PLAIN = (
    b"From: Ben <ben@sender.example>\n"
    b"To: member@example.com, second@example.com\n"
    b"Subject: For both of you\n"
    b"Date: Wed, 04 Mar 2026 12:00:00 +0000\n"
    b"Message-ID: <both@sender.example>\n"
    b"\n"
    b"One message, two recipients.\n"
    b".\n"
    b"A line with a dot above.\n"
)

TRIAL = b"From: Ben <ben@sender.example>\nSubject: quarantine trial\nMessage-ID: <trial@sender.example>\n\nHello.\n"

MESSAGES = [
    ("a newsletter in Korean, EUC-KR, with HTML", KOREAN, [MEMBER]),
    ("one with two attachments", ATTACHMENTS, [MEMBER]),
    ("one that no parser likes", BROKEN, [MEMBER]),
    ("the newsletter again: its sender never saw our answer", KOREAN, [MEMBER]),
    ("one to two recipients", PLAIN, [MEMBER, f"second@{DOMAIN}"]),
]


def say(text: str) -> None:
    """A heading."""
    print(f"\n==> {text}", flush=True)


def show(text: str) -> None:
    """Something that happened, indented."""
    print(textwrap.indent(text.rstrip(), "    "), flush=True)


def commands(handler: Handler, *arguments: object) -> None:
    """Run one of the operator's commands, and show it with what it prints."""
    show(f"$ pipehandler {' '.join(map(str, arguments))}")
    show(pipehandler("--config", handler.config, *arguments))
    print()


def postfix_and_all(folder: Path, conninfo: str, sections: dict[str, dict[str, object]], stack: ExitStack) -> MailHost:
    """Send the messages over SMTP, and show what Postfix says of them."""
    say("starting a private Postfix with the lines that `pipehandler postfix` prints")
    host = MailHost(folder / "mx", conninfo, **sections)
    show(host.postconf("-M", "pipehandler/unix").replace(" -", "\n  -").replace(" argv", "\n  argv"))
    host.start()
    stack.callback(host.stop)

    say(f"sending over SMTP to 127.0.0.1:{host.port}")
    for what, message, recipients in MESSAGES:
        host.send(message, SENDER, *recipients)
        show(f"{what}: {len(message)} octets to {', '.join(recipients)}")
        host.drain()  # so that they are stored in this order

    say("the queue is empty; this is what Postfix logged")
    show("\n".join(line for line in host.log().splitlines() if "status=" in line))
    say("and the handler")
    show("\n".join(host.handler.log_lines()))
    return host


def entrypoint_alone(folder: Path, conninfo: str, sections: dict[str, dict[str, object]]) -> Handler:
    """Without root or Postfix: run the entrypoint as pipe(8) would."""
    reason = "root is needed to run Postfix" if not account.IS_ROOT else "there is no Postfix here"
    say(f"{reason}: running the same entrypoint from stdin, as pipe(8) would")
    handler = Handler(folder, conninfo, **sections)
    for what, message, recipients in MESSAGES:
        for recipient in recipients:  # as with pipehandler_destination_recipient_limit = 1
            ended = handler.deliver(message, recipient, sender=SENDER)
            show(f"{what}: status {ended.status}, {ended.output.strip()}")
    say("the log")
    show("\n".join(handler.log_lines()))
    return handler


def quarantine(handler: Handler, host: MailHost | None, server: PostgreSQL) -> bool:
    """Show the quarantine: the database refuses the parsed view of a message, and later accepts it."""
    say("one that the database refuses: its bytes are stored all the same, and it is parsed again later")
    refusal = "ADD CONSTRAINT trial CHECK (subject IS DISTINCT FROM 'quarantine trial') NOT VALID"
    server.psql("mail", f"ALTER TABLE pipehandler.message {refusal}")
    if host is not None:
        host.send(TRIAL, SENDER, MEMBER)
        host.drain()
    else:
        handler.deliver(TRIAL, MEMBER, sender=SENDER)
    commands(handler, "quarantine", "list")
    server.psql("mail", "ALTER TABLE pipehandler.message DROP CONSTRAINT trial")
    commands(handler, "reparse")
    commands(handler, "list", "--subject", "quarantine trial")
    return "parsed" in pipehandler("--config", handler.config, "list", "--subject", "quarantine trial")


def compare(handler: Handler) -> bool:
    """Take out what was stored, and compare it with what was sent."""
    say("comparing with what was sent")
    listed = json.loads(pipehandler("--config", handler.config, "list", "--json"))
    stored = [raw(handler, "raw", each["id"]) for each in listed]
    ends = []
    for what, message, recipients in MESSAGES:
        # Above the message stands the Received field of our own Postfix, and nothing else.
        copies = sum(
            re.fullmatch(rb"(Received:.*\n(\s.*\n)*)?", each.removesuffix(message)) is not None for each in stored
        )
        ends.append(copies == len(recipients))
        show(f"{'equal' if ends[-1] else 'DIFFERENT'}: raw bytes of {what} ({copies} stored)")
    (picture,) = (each["id"] for each in listed if each["attachments"] == 2)
    ends.append(raw(handler, "attachment", picture, 1) == PICTURE)
    show(f"{'equal' if ends[-1] else 'DIFFERENT'}: the picture taken out, {len(PICTURE)} octets")
    return all(ends)


def raw(handler: Handler, *arguments: object) -> bytes:
    """The bytes that a command writes."""
    command = [
        str(Path(sys.executable).with_name("pipehandler")),
        "--config",
        str(handler.config),
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, check=True).stdout


def inbox_page(folder: Path, server: PostgreSQL, host: MailHost | None, stack: ExitStack) -> None:
    """Start the inbox page for the addresses of a domain of its own, and show how to send mail to one of them."""
    server.psql("mail", "CREATE ROLE page LOGIN IN ROLE pipehandler_web")
    admin = server.conninfo("mail")
    rules = {
        "domain": DOMAIN,
        "max_ttl": 86_400,
        "max_life": 604_800,
        "grace": 86_400,
        "held": 2_592_000,
        "delimiter": "+",
        "reserved_names": ["member", "second"],
        "max_messages": 1000,
        "max_octets": 100_000_000,
        "max_opened_per_hour": 10_000,
        "max_inboxes": 100_000,
    }
    server.psql("mail", f"SELECT pipehandler.set_web_domains('{json.dumps([rules])}')")
    page = WebServer(folder / "page", server.conninfo("mail", user="page"), domains=[DOMAIN], ttl=3600, max_life=86_400)
    stack.enter_context(page)
    show(f"the inbox page: http://127.0.0.1:{page.port}/")
    if host is not None:
        show("get an address there, and send it something:")
        show(
            "printf 'Subject: Your code is 481516\\n\\nYour code is 481516.\\n' |"
            f" curl smtp://127.0.0.1:{host.port} --mail-from you@example.org --mail-rcpt NAME@{DOMAIN} -T -"
        )
    show(f"all mail: {viewer(admin, page)}")


def viewer(admin: str, page: WebServer) -> str:
    """The link of a viewer's key to all mail."""
    printed = pipehandler(
        "--config", page.config, "--conninfo", admin, "web", "key", "--all", "--label", "demonstration"
    )
    key = re.search(r"#\S+", printed)
    return f"http://127.0.0.1:{page.port}/en/open{key[0] if key else ''}"


def main() -> int:
    """Run the demonstration; the status is 0 when everything arrived as it was sent."""
    options = argparse.ArgumentParser(description="pipehandler, from nothing to stored mail")
    options.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    keep = options.parse_args().keep

    with ExitStack() as stack:
        folder = stack.enter_context(account.folder("pipehandler-demo-"))
        say(f"starting the embedded PostgreSQL in {folder}")
        server = PostgreSQL(folder / "pg", 16).start()
        stack.callback(server.stop)
        server.psql("postgres", "CREATE DATABASE mail")
        server.psql("postgres", "REVOKE TEMPORARY ON DATABASE mail FROM PUBLIC")

        admin = server.conninfo("mail")
        say("applying sql/")
        show(pipehandler("--conninfo", admin, "migrate"))
        server.psql("mail", "CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest")
        conninfo = server.conninfo("mail", user="pipehandler")
        sections: dict[str, dict[str, object]] = {"database": {"admin_conninfo": admin}}

        if account.IS_ROOT and shutil.which("postfix", path="/usr/sbin:/usr/bin"):
            host = postfix_and_all(folder, conninfo, sections, stack)
            handler = host.handler
        else:
            host = None
            handler = entrypoint_alone(folder, conninfo, sections)

        say("what arrived")
        commands(handler, "list")
        commands(handler, "show", 1)
        commands(handler, "show", 2)
        commands(handler, "show", 3)
        equal = compare(handler) & quarantine(handler, host, server)

        if keep:
            program = Path(sys.executable).with_name("pipehandler")
            say("it is still running; send it mail of your own, and look at it:")
            if host is not None:
                show(
                    "printf 'Subject: mine\\n\\nHello.\\n' |"
                    f" curl smtp://127.0.0.1:{host.port} --mail-from you@example.org --mail-rcpt {MEMBER} -T -"
                )
                show(f"{program} --config {handler.config} list")
                show(f"MAIL_CONFIG={host.config} {program} --config {handler.config} status")
                show(f"tail -f {host.maillog}")
            else:
                show(f"printf 'Subject: mine\\n\\nHello.\\n' | {shlex.join(handler.command(MEMBER))}")
                show(f"{program} --config {handler.config} list")
            show(f"psql '{admin}'")
            inbox_page(folder, server, host, stack)
            # Blocked before anyone is told of Ctrl-C, so that one that comes at once is not lost.
            ends = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            say("Ctrl-C stops everything")
            signal.sigwait(ends)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
            say("stopping")
    if sys.prefix != sys.base_prefix:
        say(f"gone, except for the programs in {sys.prefix}, for the next run; `rm -r {sys.prefix}*` removes them")
    say("everything arrived as it was sent" if equal else "SOMETHING IS DIFFERENT, see above")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
