"""Hooks of MkDocs: pages that lie outside docs/, and links that hold in the site.

Links to what isn't part of the site (configs, examples, the license) become their text.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "examples/from-python.ipynb": "examples/from-python.md",
}
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/."""
    for name, page in OUTSIDE.items():
        text = (ROOT / name).read_text("utf-8")
        content = notebook_page(text) if name.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=content))
    return files


def notebook_page(text: str) -> str:
    """Return a notebook as Markdown, its code without outputs."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page lead to pages of the site."""
    here = page.file.src_uri
    sources = {ours: name for name, ours in OUTSIDE.items()}
    source = sources.get(here, f"docs/{here}")

    def in_site(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = OUTSIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            if (ROOT / path).exists():
                return text
            return link[0]  # MkDocs says that it leads nowhere
        relative = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({relative}{anchor or ''})"

    return LINK.sub(in_site, markdown)
