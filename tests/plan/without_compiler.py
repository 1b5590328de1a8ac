"""What `chomp ARGS` is on a machine without the extra `plan`: `without_compiler.py ARGS`."""

import sys

import chomp.hlo.target as target

# Others take it from there at their import.
assert "chomp.plan.request" not in sys.modules
target.has_gpu_compiler = lambda: False

from chomp.cli import main  # noqa: E402

main(sys.argv[1:])
