"""The DNS records that a domain needs to receive mail, and whether they exist.

No lookup takes longer than a few seconds.
"""

import ipaddress
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .step import output

_SECONDS = 5
_MARKS = {"SPF": "v=spf1", "DMARC": "v=DMARC1", "MTA-STS": "v=STSv1", "TLS-RPT": "v=TLSRPTv1"}
"""The beginning of the TXT record for each purpose."""


class Record(NamedTuple):
    """One record. purpose: MX, address, SPF and so on. optional: whether mail arrives without it."""

    purpose: str
    name: str
    type: str
    value: str
    optional: bool = False

    def line(self) -> str:
        """Return the record as a line of a zone file."""
        return f"{self.name}. IN {self.type} {self.value}"


def records(domain: str, mail_host: str, addresses: Sequence[str]) -> list[Record]:
    """Return the records for a domain, as an A-label, whose mail comes to `mail_host` with `addresses`.

    The SPF record states that no host sends mail for the domain, the DMARC record that failing mail is to be rejected.
    A domain that sends mail needs different ones.
    """
    postmaster = f"postmaster@{domain}"
    return [
        Record("MX", domain, "MX", f"10 {mail_host}."),
        *(Record("address", mail_host, "AAAA" if ":" in address else "A", address) for address in addresses),
        Record("SPF", domain, "TXT", '"v=spf1 -all"'),
        Record("DMARC", f"_dmarc.{domain}", "TXT", f'"v=DMARC1; p=reject; rua=mailto:{postmaster}"'),
        Record("MTA-STS", f"_mta-sts.{domain}", "TXT", '"v=STSv1; id=1"', optional=True),
        Record("TLS-RPT", f"_smtp._tls.{domain}", "TXT", f'"v=TLSRPTv1; rua=mailto:{postmaster}"', optional=True),
    ]


def public_addresses() -> list[str]:
    """Return the addresses of this host that are reachable from the Internet; none behind address translation."""
    found = (output(["hostname", "-I"]) or "").split()
    return [address for address in found if ipaddress.ip_address(address).is_global]


def states(wanted: Sequence[Record], resolver: Sequence[str] = ()) -> list[str]:
    """Return for each record "exists", "missing", "another one: ...", or "not checked", with the reason.

    resolver: further arguments of dig(1), such as the server to ask.
    """
    if shutil.which("dig") is None:
        return ["not checked (apt-get install bind9-dnsutils)"] * len(wanted)
    with ThreadPoolExecutor(len(wanted) or 1) as threads:
        return list(threads.map(lambda record: _state(record, resolver), wanted))


def _state(record: Record, resolver: Sequence[str]) -> str:
    printed = output(
        ["dig", *resolver, "+time=2", "+tries=1", "+noall", "+comments", "+answer", record.name, record.type], _SECONDS
    )
    status = re.search(r"status: (\w+)", printed or "")
    if printed is None or status is None:
        return "not checked (no answer from DNS)"
    if status[1] not in ("NOERROR", "NXDOMAIN"):
        return f"not checked (DNS answers {status[1]})"
    answers = re.findall(rf"^\S+\s+\d+\s+IN\s+{record.type}\s+(.*)$", printed, re.MULTILINE)
    mark = _MARKS.get(record.purpose)
    values = [answer for answer in answers if mark is None or answer.strip('"').startswith(mark)]
    if not values:
        return "missing"
    if mark or any(_same(record, value) for value in values):
        return "exists" if not mark or record.value in values else f"another one: {values[0]}"
    return f"another one: {values[0]}"


def _same(record: Record, value: str) -> bool:
    if record.type == "MX":  # with any preference
        return value.split()[-1].lower() == record.value.split()[-1].lower()
    if record.type in ("A", "AAAA"):
        return ipaddress.ip_address(value) == ipaddress.ip_address(record.value)
    return value == record.value


def report(domains: Sequence[str], mail_host: str, interfaces: str) -> list[str]:
    """Return the records for the domains (A-labels) as lines of a zone file, each with its state as a comment.

    mail_host, interfaces: myhostname and inet_interfaces of Postfix.
    """
    lines = []
    if not _is_qualified(mail_host):
        proposal = f"mx.{domains[0]}"
        lines.append(f"; myhostname is {mail_host}, which no MX record can name: postconf -e myhostname={proposal}")
        mail_host = proposal
    addresses = public_addresses()
    if not addresses:
        lines.append(
            f"; {mail_host} needs an A or AAAA record with the public address of this host, which it does not know"
        )
    wanted = list(dict.fromkeys(record for domain in domains for record in records(domain, mail_host, addresses)))
    for record, state in zip(wanted, states(wanted), strict=True):
        lines.append(f"{record.line()} ; {record.purpose}{', optional' if record.optional else ''}: {state}")
    lines.append("; MTA-STS also needs https://mta-sts.DOMAIN/.well-known/mta-sts.txt (RFC 8461)")
    if interfaces in ("loopback-only", "localhost", "127.0.0.1"):
        lines.append(f"; inet_interfaces is {interfaces}: until that changes, no mail from other hosts arrives")
    return lines


def _is_qualified(mail_host: str) -> bool:
    """Return whether a name can be the target of an MX record: it has a domain that others can look up."""
    return "." in mail_host and not mail_host.endswith((".localdomain", ".local", ".internal"))
