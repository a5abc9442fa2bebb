"""The settings of an installation, and the files that come with it."""
