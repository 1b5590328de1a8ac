"""The rules between configuration keys."""
