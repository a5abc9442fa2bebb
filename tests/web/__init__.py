"""The inbox page over HTTP: a real server and a real database."""
