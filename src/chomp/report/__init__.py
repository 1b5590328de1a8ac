"""Runs on a page, live or in a file, and two runs compared."""
