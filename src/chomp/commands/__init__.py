"""What the commands do that look at a run rather than train it."""
