"""Many runs of one configuration with other values, compared."""
