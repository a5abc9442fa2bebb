"""This process: its time, its limits, its children and its service manager."""
