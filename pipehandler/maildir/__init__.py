"""The Maildir watcher: new mail in Maildirs, from the event to the rename."""
