"""Checkpoints: what is in their folders, what is good of it, and saving and restoring.

`checkpointer` and `arrays` import Orbax, which takes seconds; the others don't. So import from the
modules.
"""
