"""What is recorded about an attempt: a log line, a journal record, and a report to Sentry."""
