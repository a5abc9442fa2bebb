"""The inbox page in Chromium."""
