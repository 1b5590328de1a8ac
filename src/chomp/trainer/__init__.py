"""A training run: the only package that knows all parts of one."""
