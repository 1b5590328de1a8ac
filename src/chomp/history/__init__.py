"""What happened in a run: which documents each step was trained on."""

from chomp.history.ledger import Entry, Found, Ledger, find_entry

__all__ = ["Entry", "Found", "Ledger", "find_entry"]
