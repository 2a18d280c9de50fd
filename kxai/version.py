"""The version of kxai, kept apart so that the packaging can read it without importing anything."""

__version__ = "0.1.0"
