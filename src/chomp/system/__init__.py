"""What chomp needs of its process and machine: JAX's settings, signals, files, the terminal."""
