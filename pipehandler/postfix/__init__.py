"""Postfix: its parameters, its queue, and example files for its configuration."""
