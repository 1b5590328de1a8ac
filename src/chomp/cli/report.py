"""`chomp report`."""

from collections.abc import Sequence
from pathlib import Path

import click

from chomp.cli.options import FolderPath, plugin_option
from chomp.system.terminal import one_line


@click.command()
@click.argument("runs", type=FolderPath(), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--documents",
    is_flag=True,
    help="Show the first words of some steps' documents; opens the runs' data.",
)
@plugin_option
def report(runs: Sequence[Path], output: Path, documents: bool) -> None:
    """Write one page about runs: curves, samples, data, history, differences.

    The page is one file that needs no network and no server. Runs may still be training; `chomp
    watch` shows them as they go on.

    \b
    chomp report runs/first
    chomp report runs/first runs/second -o comparison.html
    chomp report runs/* --documents
    """
    from chomp.report.write import write_report

    views = write_report(runs, output, texts=documents)
    size = output.stat().st_size / 1e6
    rows = sum(view.metrics.rows for view in views)
    click.echo(one_line(f"{output}: {len(views)} run(s), {rows:,} rows of metrics, {size:.1f} MB"))
