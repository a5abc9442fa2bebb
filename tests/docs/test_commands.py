"""The commands of the pages are run as written, page by page, and their output matches what the pages show."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from .host import Host, new_host
from .pages import PAGES, Block, before, blocks, marked

INSTALL = "docs/install.md"

# What a page shows with its commands: a regular expression that the output of its blocks matches.
SHOWN = {
    "docs/install.md": r"everything is as it should be[^=]*==>.*\bfirst\b",
    "docs/setup.md": r"^main\.cf: mail .*pipehandler setup .*^virtual_mailbox_domains: setup added example\.net",
    "docs/upgrade.md": r"^everything is as it should be",
    "docs/uninstall.md": r"docs/uninstall\.md:\d+\n\Z",
    "docs/resident-workers.md": r"\bsecond\b.*^delivered +1$",
    "docs/lmtp.md": r"everything is as it should be.*\bthird\b",
    "docs/maildir.md": r"\bfourth\b.*everything is as it should be",
    "docs/reading-mail.md": r"user@example\.com.*Hello\.",
    "docs/addresses.md": r"(\w{4}\.){3}\w{4}@example\.com",
    "docs/tutorial-disposable-inbox.md": r"^(\w{4}\.){3}\w{4}@example\.com\nshop@example\.org\nYour code\n4711$",
    "docs/tutorial-newsletter-reader.md": r"member-1 +\| garden +\| Beans +\| t$",
    "docs/erase.md": r"would remove 1 delivery, 1 message\nremoved 1 delivery, 1 message\n",
    "docs/backup.md": r"recorded this cluster\neverything is as it should be",
    "docs/monitoring.md": r"^pipehandler_exits_total.* 1\.0$",
    "docs/quarantine.md": r"duplicate",
}


ON_PORT_25 = ("docs/receive-only.md",)
"""Pages whose host listens on the SMTP port."""


def commands(page: str) -> list[Block]:
    """The blocks of a page, without the demonstration, which has its own tests."""
    return [block for block in blocks(page, "sh") if "script/demo" not in block.text]


@pytest.mark.usefixtures("_postfix")
def test_pages(subtests: pytest.Subtests) -> None:
    """Every command of every page works, and the output of `check` and `status` matches the pages.

    One test, because setting up the host of docs/install.md takes longer than any page that starts from it.
    """
    with new_host() as host, ThreadPoolExecutor(2) as threads:
        done, installed = host.after(*commands(INSTALL))
        output = done_well(done)
        assert re.search(SHOWN[INSTALL], output, re.MULTILINE | re.DOTALL), output
        run_before_another = {earlier for page in PAGES for earlier in before(page)}
        alone = [page for page in PAGES if before(page) and commands(page) and page not in run_before_another]
        checks = {page: threads.submit(run_page, installed, page) for page in alone}
        checks["README.md"] = threads.submit(run_readme, installed.only("opt"))
        checks["the sample of check"] = threads.submit(run_check, installed)
        checks["the sample of status"] = threads.submit(run_status, installed)
        for name, check in checks.items():
            with subtests.test(name):
                check.result()


def done_well(done: subprocess.CompletedProcess[str]) -> str:
    """The output of blocks of which none failed."""
    places = re.findall(r"^==> (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, f"{places[-1] if places else 'set-up'} failed:\n{done.stdout}"
    return done.stdout


def run_page(host: Host, page: str) -> None:
    """Run the pages that a page names, and then itself, on a host that was set up as in docs/install.md."""
    pages = [*before(page)[1:], page]
    output = done_well(host.run(*(block for each in pages for block in commands(each)), alone=page in ON_PORT_25))
    for each in pages:
        own = output.partition(f"==> {commands(each)[0].place}")[2]
        assert re.search(SHOWN.get(each, ""), own, re.MULTILINE | re.DOTALL), output


def run_readme(host: Host) -> None:
    """The setup of README.md on a new host, which has only the libraries: an incoming message is listed."""
    send = "printf 'Subject: first\\n\\nHello.\\n' | sendmail -f me@example.org user@example.com"
    wait = "until pipehandler list | grep first; do sleep 0.2; done"
    done_well(host.run(*commands("README.md"), send, wait))


def run_check(host: Host) -> None:
    """The output of `check` in docs/install.md is what it prints on that host when the handler's role has too many
    privileges."""
    grant = "runuser -u postgres -- psql -q -d mail -c 'GRANT pipehandler_reader TO pipehandler'"
    output = done_well(host.run(grant, "echo ---; pipehandler check || [ $? = 1 ]"))
    assert output.partition("---\n")[2] == marked(INSTALL, "check")


def run_status(host: Host) -> None:
    """Every line of `status` in docs/troubleshooting.md is printed there, except for numbers, when the database is
    down."""
    down = "umount /run/postgresql"
    send = "sendmail -f me@example.org user@example.com < /dev/null"
    # The breaker refuses for two seconds, so on a slow host it may take more than one message until one is refused.
    fail = f"until pipehandler status | grep '^outage: '; do {send}; sleep 0.2; done"
    wait = "while pipehandler status | grep '[0-9] active'; do sleep 0.2; done"
    output = done_well(host.run(down, send, fail, wait, "pipehandler status || [ $? = 1 ]", "postsuper -d ALL"))
    printed = {shape(line) for line in output.splitlines()}
    shown = marked("docs/troubleshooting.md", "status").splitlines()
    assert [line for line in shown if shape(line) not in printed] == []


def shape(line: str) -> str:
    """A line of `status` without what differs from run to run: bars, times, queue ids, numbers, the width of columns."""
    line = re.sub(r"[·▁▂▃▄▅▆▇█]+", "~", line)
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d|queue id \w+", "*", line)
    return re.sub(r"\s+", " ", re.sub(r"(?<![\w.])\d+\b", "*", line)).strip()
