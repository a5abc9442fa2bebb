"""The usual script: what people write when they pipe mail into a database. All benchmarks are compared with it.

It imports at the top, parses, connects, inserts, commits. bench/one.py creates its table.
"""

import sys

import click
import mailparser
import psycopg
import sentry_sdk


@click.command()
@click.argument("conninfo")
def main(conninfo: str) -> None:
    """Store the message on stdin."""
    sentry_sdk.init()
    raw = sys.stdin.buffer.read()
    mail = mailparser.parse_from_bytes(raw)
    with psycopg.connect(conninfo) as connection:
        connection.execute(
            "INSERT INTO usual (message_id, subject, sender, body, raw) VALUES (%s, %s, %s, %s, %s)",
            (mail.message_id, mail.subject, str(mail.from_), mail.body, raw),
        )


if __name__ == "__main__":
    main()
