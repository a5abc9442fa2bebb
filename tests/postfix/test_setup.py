"""`pipehandler setup` on whole hosts: bare ones, and one that delivers to Dovecot. Each runs in namespaces, with copies
of /etc and /var, so that setup may change them as on a mail host."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.host import Host, new_host
from harness import account
from harness.missing import missing

pytestmark = pytest.mark.usefixtures("_postfix")

_FUNCTIONS = r"""
snapshot() {  # what setup may change: names, owners, modes and contents; not the copies that passwd(5) programs make
    (
        cd /
        find etc/passwd etc/group etc/shadow etc/gshadow etc/postfix* etc/pipehandler etc/second etc/sysusers.d etc/tmpfiles.d \
            ! -name prng_exch -printf '%p %M %U:%G %l\n' -type f -exec sha256sum {} + 2>/dev/null
        find etc usr/local var/lib var/spool -name '*pipehandler*'
    ) | sort
}
sql() { runuser -u postgres -- psql -q -d "${2-mail}" -Atc "$1"; }
"""
HEAD = f"export PATH={Path(sys.executable).parent}:$PATH{_FUNCTIONS}"
CACHE = Path(sys.prefix).parent
"""Above the virtual environment; below /var, of which the sandbox has a copy."""

SETUP = "pipehandler setup --domain example.com"


@pytest.fixture(scope="module")
def bare() -> Iterator[Host]:
    """A host on which nothing of ours is installed."""
    with new_host() as host:
        yield host


@pytest.fixture(scope="module")
def done(bare: Host) -> tuple[str, Host]:
    """The output of setup on a bare host, and the host after it."""
    ended, host = bare.after(HEAD, f"snapshot > /var/before\n{SETUP}")
    assert ended.returncode == 0, ended.stdout
    return ended.stdout, host


def succeeded(ended: subprocess.CompletedProcess[str]) -> str:
    """The output of commands of which none failed."""
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def commands(printed: str) -> list[str]:
    """The commands that setup printed, without that of `check`, which it always runs."""
    return [line for line in re.findall(r"^    \$ (.*)", printed, re.MULTILINE) if " check " not in line]


def test_bare_host(done: tuple[str, Host]) -> None:
    """One command leads to a stored message, without findings; it prints the records that DNS needs."""
    printed, _ = done
    assert re.search(r"^ *1  .*  postmaster@example\.com .* pipehandler setup .* parsed ", printed, re.MULTILINE)
    assert "everything is as it should be" in printed
    assert '_dmarc.example.com. IN TXT "v=DMARC1; p=reject; rua=mailto:postmaster@example.com" ; DMARC: ' in printed
    assert 'example.com. IN TXT "v=spf1 -all" ; SPF: ' in printed


def test_again_and_removed(done: tuple[str, Host]) -> None:
    """The second run changes nothing; the removal leaves the host as it was, except for the mail."""
    script = f"""
        snapshot > /var/installed
        {SETUP} > /var/again
        snapshot | diff /var/installed -
        pipehandler setup --remove
        snapshot | diff /var/before -
        sql 'SELECT recipient FROM pipehandler.delivery'
        sql "SELECT 'login ' || rolname FROM pg_roles WHERE rolcanlogin"
        pipehandler setup --remove
        cat /var/again
    """
    printed = succeeded(done[1].run(HEAD, script))
    removed, _, again = printed.partition("nothing to undo")
    assert commands(again) == []
    assert re.findall(r"^(?:postmaster@|login ).*", removed, re.MULTILINE) == [
        "postmaster@example.com",
        "login postgres",
    ]
    assert "kept, with the mail: database mail" in removed


@pytest.mark.long
def test_script(bare: Host) -> None:
    """The script that --dry-run prints is one for sh, and does what setup does: after it, setup finds nothing to do, and prints
    nothing with --quiet."""
    script = f"""
        snapshot > /var/before
        {SETUP} --dry-run > /var/script
        snapshot | diff /var/before -
        sh -n /var/script
        sh /var/script
        echo ===
        {SETUP}
        test -z "$({SETUP} --quiet)"
    """
    by_script, _, by_setup = succeeded(bare.run(HEAD, script)).partition("===\n")
    assert "pipehandler setup" in by_script
    assert commands(by_setup) == []


# Ten mistakes that an operator may make on a host that was set up.
MISTAKES = {
    "the configuration is gone": "rm /etc/pipehandler/pipehandler.toml",
    "the state directory is gone": "rm -r /var/lib/pipehandler",
    "the state directory belongs to root": "chown root:root /var/lib/pipehandler",
    "a role lost its group": "sql 'REVOKE pipehandler_ingest FROM pipehandler'",
    "the role of Postfix is gone": "sql 'DROP ROLE postfix'",
    "the role of the commands is gone": "sql 'DROP ROLE root'",
    "the table of recipients is gone": "rm /etc/postfix/pgsql-recipients.cf",
    "the status filter is gone": "rm /etc/postfix/pipehandler_status_filter",
    "nothing names the transport": "postconf -X virtual_transport virtual_mailbox_domains virtual_mailbox_maps",
    "limits of the transport": "postconf -X pipehandler_destination_recipient_limit pipehandler_time_limit message_size_limit",
    "the transport is gone": "postconf -MX pipehandler/unix",
    "postmaster is refused": "pipehandler address remove --yes postmaster@example.com",
    "Postfix is down": "postfix stop",
}


@pytest.mark.long
def test_mistakes_are_repaired(done: tuple[str, Host]) -> None:
    """Another run repairs all of them at once, on the same host, and mail arrives again."""
    everything = "\n".join(reversed(MISTAKES.values()))  # reversed, so that Postfix is stopped first
    script = f"{everything}\n{SETUP}\npipehandler setup --remove\nsnapshot | diff /var/before -"
    printed = succeeded(done[1].run(HEAD, script))
    assert "everything is as it should be" in printed
    assert re.search(r"^ *\d+  .*  postmaster@example\.com .* pipehandler setup ", printed, re.MULTILINE)


@pytest.mark.long
def test_mail_in_the_queue_is_not_lost(done: tuple[str, Host]) -> None:
    """While Postfix has mail for the handler, the handler is not removed: such mail would bounce."""
    script = """
        postconf -e defer_transports=pipehandler
        postfix reload
        printf 'Subject: waits\\n\\n' | sendmail -f me@example.org postmaster@example.com
        until postqueue -j | grep -q deferred; do sleep 0.2; done
        cp /etc/postfix/main.cf /var/main.cf
        pipehandler setup --remove && exit 1
        cmp /etc/postfix/main.cf /var/main.cf
        postsuper -d ALL
        pipehandler setup --remove
    """
    assert "Postfix has mail for postmaster@example.com in its queue" in succeeded(done[1].run(HEAD, script))


DOVECOT = r"""
cat > /etc/dovecot/test.conf <<'END'
base_dir = /var/lib/dovecot-test
log_path = /var/log/dovecot.log
protocols = lmtp
ssl = no
mail_location = maildir:/var/mail/dovecot/%u
first_valid_uid = 8
userdb {
  driver = static
  args = uid=mail gid=mail home=/var/mail/dovecot/%u
}
passdb {
  driver = static
  args = nopassword=y
}
service lmtp {
  unix_listener /var/spool/postfix/private/dovecot-lmtp {
    mode = 0666
  }
}
END
install -d -o mail -g mail /var/mail/dovecot
dovecot -c /etc/dovecot/test.conf
echo 'in-a-table.example yes' > /etc/postfix/domains
printf 'anna@firma.example yes\nbert@in-a-table.example yes\n' > /etc/postfix/users
postconf -e 'virtual_mailbox_domains = firma.example, texthash:/etc/postfix/domains' \
    'virtual_transport = lmtp:unix:private/dovecot-lmtp' 'virtual_mailbox_maps = texthash:/etc/postfix/users' \
    'transport_maps = inline:{{ elsewhere.example = discard: }}' 'message_size_limit = 60000000' 'virtual_mailbox_limit = 0'
postconf -M "$PORT/inet=127.0.0.1:$PORT inet n - n - - smtpd"
postfix start
cp /etc/postfix/main.cf /etc/postfix/master.cf /var
# A line for each recipient: whether smtpd(8) accepts it.
mail() {
    python3 - "$@" <<'END'
import os, smtplib, sys
with smtplib.SMTP("127.0.0.1", int(os.environ["PORT"])) as client:
    for recipient in sys.argv[1:]:
        client.mail("me@example.org")
        code, text = client.rcpt(recipient)
        if code == 250:
            client.data(b"Subject: test\r\n\r\n")
        else:
            client.rset()
        print("rcpt", recipient, code)
END
}
"""


@pytest.mark.long
def test_beside_dovecot(bare: Host) -> None:
    """A host with Dovecot keeps its mail, before, between and after; our domain is delivered to us; and the removal
    restores its files."""
    if shutil.which("dovecot") is None:
        missing("Dovecot")
    theirs = "anna@firma.example bert@in-a-table.example nobody@firma.example"
    count = 'delivered() { until [ "$(find /var/mail/dovecot -path "*/new/*" -type f | wc -l)" = "$1" ]; do sleep 0.2; done; }'
    script = f"""
        {count}
        mail {theirs}
        delivered 2
        {SETUP} < /dev/null && exit 1
        cmp /etc/postfix/main.cf /var/main.cf
        test ! -e /etc/pipehandler
        {SETUP} --yes
        mail {theirs} postmaster@example.com nobody@example.com
        delivered 4
        {SETUP} --domain example.net --catch-all --yes
        mail {theirs} anything@example.com anything@example.net
        delivered 6
        until [ "$(pipehandler list --json | grep -c '"recipient"')" = 6 ]; do sleep 0.2; done
        echo ===
        {SETUP} --domain example.net
        pipehandler setup --domain firma.example --yes && exit 1
        pipehandler setup --domain in-a-table.example --yes && exit 1
        pipehandler setup --domain elsewhere.example --yes && exit 1
        echo ===
        pipehandler setup --remove
        mail {theirs}
        delivered 8
        for file in main.cf master.cf; do cmp /etc/postfix/$file /var/$file; done
    """
    port = f"export PORT={account.free_port()}"
    before, again, _ = succeeded(bare.run(HEAD, port, DOVECOT, script)).split("===\n")
    assert re.findall(r"^rcpt (\S+) (\d+)", before, re.MULTILINE) == [
        *(own := [("anna@firma.example", "250"), ("bert@in-a-table.example", "250"), ("nobody@firma.example", "550")]),
        *(*own, ("postmaster@example.com", "250"), ("nobody@example.com", "550")),
        *(*own, ("anything@example.com", "250"), ("anything@example.net", "250")),
    ]
    assert "    -virtual_mailbox_maps = texthash:/etc/postfix/users\n" in before
    assert commands(again) == []
    assert "firma.example is in virtual_mailbox_domains, and its mail goes to lmtp:unix:private/dovecot-lmtp" in again
    assert "in-a-table.example is in virtual_mailbox_domains" in again
    assert "elsewhere.example goes to discard: by transport_maps" in again


@pytest.mark.long
def test_receive_only(bare: Host) -> None:
    """--receive-only puts postscreen before smtpd: a stranger's mail is stored, and nothing is relayed."""
    script = f"""
        echo 'smtp      inet  n       -       y       -       -       smtpd' >> /etc/postfix/master.cf
        postconf -e postscreen_greet_wait=1s
        postfix start
        {SETUP} --receive-only --catch-all
        python3 - <<'END'
import smtplib
with smtplib.SMTP("127.0.0.1", source_address=("127.0.0.9", 0)) as client:
    client.sendmail("me@example.org", ["anyone@example.com"], "Subject: stranger")
    client.mail("me@example.org")
    print("elsewhere:", client.rcpt("someone@elsewhere.example")[0])
END
        until pipehandler list | grep stranger; do sleep 0.2; done
        cat /var/log/postfix.log
    """
    printed = succeeded(bare.run(HEAD, "postconf -e mynetworks=127.0.0.1/32", script, alone=True))
    assert "main.cf has other values of smtpd_relay_restrictions, mynetworks, smtpd_banner, which stay" in printed
    assert re.search(r"^elsewhere: (454|554)$", printed, re.MULTILINE)
    assert re.search(r"postscreen\[\d+\]: PASS NEW \[127\.0\.0\.9\]", printed)


@pytest.mark.long
def test_embedded(bare: Host) -> None:
    """Without a server, --embedded installs one, with its own account and folder; the removal keeps it, with the
    mail."""
    script = f"""
        umount /run/postgresql
        {SETUP} --embedded
        stat -c '%U %a' /var/lib/pipehandler-postgresql/data /var/lib/pipehandler
        echo ===
        {SETUP}
        echo ===
        pipehandler setup --remove
        stat -c '%U %a' /var/lib/pipehandler-postgresql/data
    """
    first, again, removed = succeeded(bare.run(HEAD, script)).split("===\n")
    assert "--embedded is for a trial" in first
    assert first.endswith("pipehandler-postgresql 700\npipehandler 700\n")
    assert commands(again) == []
    assert removed.endswith("pipehandler-postgresql 700\n")


@pytest.mark.long
def test_second_instance(bare: Host) -> None:
    """Every path can be changed: a second Postfix, with its own configuration, database and account."""
    setup = (
        "pipehandler --config /etc/second/handler.toml --conninfo 'host=/run/postgresql port=5432' setup"
        " --config-directory /etc/postfix-2 --database mail2 --user second"
    )
    script = f"""
        cp -a /etc/postfix /etc/postfix-2
        install -d -o postfix /var/lib/postfix-2
        install -d /var/spool/postfix-2
        postconf -c /etc/postfix-2 -e queue_directory=/var/spool/postfix-2 data_directory=/var/lib/postfix-2
        snapshot > /var/before
        {setup} --domain example.com
        {setup} --domain example.com > /var/again
        {setup} --remove
        snapshot | diff /var/before -
        echo ===
        cat /var/again
    """
    printed, again = succeeded(bare.run(HEAD, script)).split("===\n")
    assert re.search(r"^ *1  .*  postmaster@example\.com .* pipehandler setup .* parsed ", printed, re.MULTILINE)
    assert "kept, with the mail: database mail2" in printed
    assert commands(again) == []


def test_refused_before_anything_changes(bare: Host) -> None:
    """A database in another encoding, an installation that other accounts cannot reach, the account root, a folder that
    is not Postfix's, and a server that is closed to its superuser: refused by name. A server with another encoding gets
    a UTF-8 database."""
    script = f"""
        snapshot > /var/before
        sql "CREATE DATABASE mail TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'" postgres
        {SETUP} && exit 1
        sql 'DROP DATABASE mail' postgres
        chmod o-x {CACHE}
        {SETUP} && exit 1
        chmod o+x {CACHE}
        {SETUP} --user root && exit 1
        {SETUP} --config-directory /nonexistent && exit 1
        hba=$(sql 'SHOW hba_file' postgres)
        echo 'local all all reject' > $hba
        exec 8> >(runuser -u postgres -- psql -q -d postgres)
        echo 'SELECT pg_reload_conf();' >&8
        while sql 'SELECT 1' postgres; do sleep 0.1; done
        {SETUP} && exit 1
        echo 'local all postgres peer' > $hba
        echo 'SELECT pg_reload_conf();' >&8
        until sql 'SELECT 1' postgres; do sleep 0.1; done
        snapshot | diff /var/before -
        {SETUP} --dry-run | grep 'CREATE DATABASE mail'
    """
    printed = succeeded(bare.run(HEAD, script))
    assert "the database mail is SQL_ASCII, not UTF8; name another one with --database" in printed
    assert f"because {CACHE} is closed to them; make the virtual environment with" in printed
    assert "root is root, as which Postfix runs no handler" in printed
    assert "/nonexistent/main.cf does not exist" in printed
    assert "at the top of pg_hba.conf it does, after a reload: local all postgres peer" in printed
    assert "CREATE DATABASE mail TEMPLATE template0 ENCODING UTF8" in printed


@pytest.mark.long
def test_systemd(bare: Host) -> None:
    """If systemd runs, the resident workers deliver; without the units the removal leaves no trace of them.

    The sandbox's replacement for systemctl acts on the units that setup wrote.
    """
    script = f"""
        mount -t tmpfs tmpfs /run/systemd
        mkdir /run/systemd/system
        postfix start
        snapshot > /var/before
        {SETUP}
        pipehandler serve --status
        {SETUP} > /var/again
        pipehandler setup --remove
        snapshot | diff /var/before -
        cat /var/again
    """
    printed = succeeded(bare.run(HEAD, script))
    assert re.search(r"^delivered +1$", printed, re.MULTILINE)
    assert commands(printed.rpartition("packages: ")[2]) == []
