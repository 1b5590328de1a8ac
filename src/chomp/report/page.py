"""One page that needs nothing from elsewhere: text, style, program and data in a file."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from chomp.system.json_text import finite_json

PARTS = files("chomp.report") / "page"
PROGRAM = (
    "dom.js",
    "store.js",
    "chart.js",
    "charts.js",
    "tables.js",
    "texts.js",
    "live.js",
    "main.js",
)
"""In the order in which they need each other."""
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""What could end an element of the page, or is no text: halves of surrogate pairs."""


def render(data: dict[str, Any]) -> str:
    """Return the page for some data.

    What comes from runs is in one element of JSON in which nothing can end it, and the page's
    program makes text of it, never markup. The page's policy lets only its own program and style
    work, and a page in a file ask for nothing; the browser enforces it.

    Args:
        data: `made` (seconds since 1970), `live`, `runs` (see `RunView`), `others`.
    """
    style = _part("uplot/uPlot.min.css") + _part("page.css")
    uplot = f"/*!\n{_part('uplot/LICENSE')}*/\n{_part('uplot/uPlot.iife.min.js')}"
    script = f"{uplot}\n(() => {{\n{''.join(map(_part, PROGRAM))}}})();\n"
    page = _part("page.html")
    for name, text in {
        "POLICY": policy(style, script, live=data["live"]),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": json_in_page(data),
    }.items():
        page = page.replace(f"@@{name}@@", text, 1)
    return page


def policy(style: str, script: str, *, live: bool) -> str:
    """Return the Content-Security-Policy of a page with these."""
    source = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        f"img-src data:; connect-src {source}"
    )


def json_in_page(data: Any) -> str:
    """Return JSON that can stand inside a `script` element."""
    text = finite_json(data, ensure_ascii=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _part(name: str) -> str:
    return (PARTS / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
