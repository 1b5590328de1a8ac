"""The installed program: the commands, and an end that waits for no thread."""

import gc
import logging
import os
import sys

from chomp.cli import main


def run(name: str | None = None) -> None:
    """Run the command that `sys.argv` names, under the name `name` in its help.

    A stop, or an error in the data, may leave a compilation, a generation or a read running. All
    that matters is saved then, and the interpreter's own end would wait for it, or crash under it.
    """
    try:
        main(prog_name=name)
    except SystemExit as end:
        launch = sys.modules.get("chomp.trainer.launch")
        if launch and launch.work_goes_on():
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        # The interpreter would look for cycles among all objects before the system frees them.
        gc.freeze()
        raise
