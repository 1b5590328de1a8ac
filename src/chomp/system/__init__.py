"""This process and machine: JAX's settings, signals, files, the terminal."""
