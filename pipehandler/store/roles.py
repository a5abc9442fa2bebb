"""The group roles that the migrations create, by what they may do."""

INGEST = "pipehandler_ingest"
"""The handler: store messages and query health, nothing else."""

READER = "pipehandler_reader"
"""Read all mail."""

LOOKUP = "pipehandler_lookup"
"""Postfix: look up one recipient."""

ADDRESS_ADMIN = "pipehandler_address_admin"
"""Applications: create, extend, end and remove leases of addresses."""

MAINTENANCE = "pipehandler_maintenance"
"""The operator's commands: read and delete mail, parse it again, import, and all that ADDRESS_ADMIN may do."""

FORMER = ("pipehandler_lessor", "pipehandler_upkeep")
"""Names of ADDRESS_ADMIN and MAINTENANCE up to 0.1.0; in a cluster they stay until every database has been migrated."""
