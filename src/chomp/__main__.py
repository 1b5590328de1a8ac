"""`python -m chomp`."""

import os
import sys

# Python puts the working folder first: a folder of the user's that is called `datasets` or `wandb`
# would be taken for the package. `chomp` itself doesn't look there either.
if sys.path and not sys.flags.safe_path and os.path.realpath(sys.path[0]) == os.getcwd():
    del sys.path[0]

from chomp.cli.program import run

run("chomp")
