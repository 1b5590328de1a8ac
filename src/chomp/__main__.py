"""`python -m chomp`."""

from chomp.cli import main

main(prog_name="chomp")
