"""`chomp plan`: what a training step would need on devices that are not there."""
