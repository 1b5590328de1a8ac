"""Proof, on a user's own configuration, that a killed run comes back exactly."""
