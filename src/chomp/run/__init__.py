"""What a run knows about itself beyond its metrics; import from the modules, which are light."""
