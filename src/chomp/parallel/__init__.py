"""Several devices that share the work."""
