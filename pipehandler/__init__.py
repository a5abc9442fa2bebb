"""pipehandler: mail from Postfix's pipe(8) into PostgreSQL, once, byte-exact, in one transaction.

This file imports nothing, because every delivery pays for it; ARCHITECTURE.md describes the floors above it.
"""

__version__ = "0.1.0"
