"""The settings of an installation, and the files that are shipped with the package."""
