"""The work of the commands that look at a run rather than train it."""
