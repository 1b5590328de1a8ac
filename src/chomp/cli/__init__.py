"""The commands: parse, call, print.

Nothing heavy is imported at module level, so that help answers at once.
"""

from chomp.cli.checkpoints import checkpoints
from chomp.cli.config import config
from chomp.cli.generate import generate
from chomp.cli.group import main
from chomp.cli.train import train

for command in (train, generate, checkpoints, config):
    main.add_command(command)

__all__ = ["main"]
