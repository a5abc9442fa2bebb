"""What a message says: `message.parse` and what it stands on. No I/O and no clock; nothing here raises for the content."""
