"""What is recorded of an attempt: a line in the log, a record in the journal, and for Sentry."""
