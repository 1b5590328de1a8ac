"""Checkpoints: what is in their folders, what is good of it, and saving and restoring.

`store` imports Orbax, which takes seconds; `archive` and below don't, so import from the modules.
"""
