"""Postfix: its parameters, its queue, and the lines that it needs."""
