"""Prepared corpora: documents encoded once, kept as shards of tokens."""
