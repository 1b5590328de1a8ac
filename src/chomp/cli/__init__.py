"""The commands: parse, call, print.

Nothing heavy is imported at module level, so that help answers at once.
"""

from chomp.cli.bench import bench
from chomp.cli.branch import branch
from chomp.cli.checkpoints import checkpoints
from chomp.cli.compare import compare
from chomp.cli.config import config
from chomp.cli.data import data
from chomp.cli.doctor import doctor
from chomp.cli.evaluate import evaluate
from chomp.cli.export import export
from chomp.cli.generate import generate
from chomp.cli.group import main
from chomp.cli.init import init
from chomp.cli.lm_eval import lm_eval
from chomp.cli.plan import plan
from chomp.cli.prove_resume import prove_resume
from chomp.cli.prove_scale import prove_scale
from chomp.cli.report import report
from chomp.cli.status import status
from chomp.cli.sweep import sweep
from chomp.cli.tokenizer import tokenizer
from chomp.cli.trace import trace
from chomp.cli.train import train
from chomp.cli.watch import watch

COMMANDS = (
    *(init, train, sweep, generate, evaluate, lm_eval, export, branch),
    *(status, report, watch, compare),
    *(checkpoints, trace, data, tokenizer, config),
    *(doctor, plan, bench, prove_resume, prove_scale),
)
for command in COMMANDS:
    main.add_command(command)

__all__ = ["main"]
