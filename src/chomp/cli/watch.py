"""`chomp watch`."""

from pathlib import Path

import click

from chomp.cli.options import FolderPath, plugin_option


@click.command()
@click.argument("path", type=FolderPath(), metavar="RUN|FOLDER")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8417,
    show_default=True,
    help="The first free one from here on is taken.",
)
@click.option("--browser", is_flag=True, help="Open the page in the browser.")
@plugin_option
def watch(path: Path, port: int, browser: bool) -> None:
    """Serve the page of `chomp report` live, for browsers on this machine, until Ctrl-C.

    FOLDER is one that runs are in; the page shows the newest, and offers the others.

    \b
    chomp watch runs/first
    chomp watch runs --browser
    ssh -L 8417:127.0.0.1:8417 HOST       # the page of a run on another machine, in your browser
    """
    from chomp.report.live_runs import LiveRuns
    from chomp.report.serve import PageServer

    with PageServer(LiveRuns(path), port) as server:
        click.echo(f"{server.address}   (Ctrl-C ends it; the runs go on)")
        if browser:
            click.launch(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("")
