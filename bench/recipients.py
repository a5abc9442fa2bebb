"""How cost grows with the recipients of a message, through Postfix to resident workers.

    bench/run recipients [--deliveries 1000]

Postfix starts the entrypoint once for each recipient, and each hands over the whole message, which is stored once.
"""

from harness.database import Database
from harness.mailhost import DOMAIN
from mail import keep, newsletter
from posting import Log, send
from report import Report, Table
from setting import Setting, Watch

SMALL = {"deliveries": 4, "most": 2}
_RECIPIENTS = (1, 2, 5, 10, 20, 50)
_SESSIONS = 8
_STORED = """
SELECT count(*) AS deliveries, count(DISTINCT message) AS messages FROM pipehandler.delivery WHERE recipient LIKE %s
"""


def measure(setting: Setting, *, deliveries: int = 1000, most: int = _RECIPIENTS[-1]) -> Report:
    """Measure each number of recipients with about as many deliveries; raises if one was not stored."""
    rows: list[list[object]] = []
    with Database.fresh(setting.server) as database, setting.mail_host(database) as host, setting.service(host.handler):
        (file,) = keep([newsletter(1)], setting.new_folder())
        for recipients in (1, *(each for each in _RECIPIENTS if each <= most)):  # the first warms the caches
            name, copies = f"r{len(rows)}of{recipients}", -(-deliveries // recipients // _SESSIONS)
            count = copies * _SESSIONS * recipients
            log, watch = Log(host, DOMAIN), setting.watch()
            before = database.value("SELECT pg_current_wal_insert_lsn()::text")
            send(host, [file] * _SESSIONS, copies, name, DOMAIN, recipients)
            log.wait(count)
            spent = watch.read()
            log.close()
            wal = database.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before)
            (stored,) = database.rows(_STORED, f"%{name}x%")
            if stored.deliveries != count:
                raise RuntimeError(f"{stored.deliveries} of {count} were stored, with {recipients} recipients each")
            rows.append(
                [
                    *(recipients, copies * _SESSIONS, stored.messages, count, count / spent.seconds),
                    *(*spent.each(count), float(wal) / count),
                ]
            )
    head = ["recipients", "sent", "stored", "deliveries", "deliveries/s", *Watch.HEAD, "WAL octets"]
    note = (
        f"A newsletter of {len(newsletter(1)):,} octets to so many recipients in one SMTP transaction; CPU and WAL are for each"
        " delivery. Sent, stored: messages."
    )
    return Report([Table("Recipients", head, rows[1:], note)])
