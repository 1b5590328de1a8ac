"""Measurements of a configuration's own parts: step, data, checkpoints, start."""
