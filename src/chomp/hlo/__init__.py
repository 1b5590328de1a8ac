"""Programs of accelerators: compiled without one, read, counted, and their time estimated."""
