"""A hook of mkdocs: each notebook is a page with what it showed when it was executed.

`make docs` executes them first (`execute.py`). A notebook that was not executed with this very code has a page without
outputs that says so: `mkdocs serve` is for writing, and waits for nobody.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.docs_site.execute import notebooks, read_executed

ANSI = re.compile(r"\x1b\[[0-9;]*m")
OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+((?:pipelines|benchmarks|deploy|tests|medclip|examples)/[^)#\s]+)(?:#[^)]*)?\)"
)
LONGEST_TEXT = 60
"""Lines of printed text on the page; the rest is left out and counted."""
PLACE = '<div class="notebook-output" data-output="{page}-{number}"></div>'

_html: dict[str, str] = {}
"""What a notebook showed as HTML, by its place in the pages: it goes past the Markdown reader."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and the images that it shows."""
    for notebook in notebooks():
        executed = read_executed(notebook)
        markdown = "\n\n".join(_blocks(notebook, executed, files, config))
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=markdown + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name files of the repository that are no pages of the site: a link to them would lead nowhere."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put each piece of HTML where the page keeps its place."""
    return re.sub(r'<div class="notebook-output" data-output="([^"]+)"></div>', lambda m: _html[m[1]], html)


def _blocks(notebook: Path, executed: Any | None, files: Files, config: MkDocsConfig) -> Iterator[str]:
    import jupytext

    about = _about(notebook, executed)
    number = 0
    for cell in (executed or jupytext.read(notebook)).cells:
        if cell.cell_type == "markdown":
            yield cell.source.replace("](../docs/", "](../")
            if about:
                yield about
                about = ""
            continue
        yield f"```python\n{cell.source}\n```"
        for output in cell.get("outputs", []):
            number += 1
            yield _block(output, notebook.stem, number, files, config)


def _block(output: Any, page: str, number: int, files: Files, config: MkDocsConfig) -> str:
    """Return an output as Markdown: an image, a table, or text."""
    if output.output_type == "stream":
        return _text(output.text)
    data = output.data
    for kind, suffix in (("image/png", "png"), ("image/jpeg", "jpg")):
        if kind in data:
            name = f"{page}_{number}.{suffix}"
            files.append(File.generated(config, f"notebooks/{name}", content=base64.b64decode(data[kind])))
            return f"![What the cell above shows]({name})"
    if "text/html" in data:
        _html[f"{page}-{number}"] = f'<div class="notebook-output">{_plain(data["text/html"])}</div>'
        return PLACE.format(page=page, number=number)
    return _text(data["text/plain"])


def _plain(html: str) -> str:
    """Return HTML in the site's own style: without that of pandas, and without the count of rows that it adds."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.S)
    return re.sub(r' border="1" class="dataframe"', "", html)


def _text(text: str) -> str:
    lines = ANSI.sub("", text).rstrip("\n").splitlines()
    if len(lines) > LONGEST_TEXT:
        lines = [*lines[:LONGEST_TEXT], f"... and {len(lines) - LONGEST_TEXT} more lines"]
    return "```text\n" + "\n".join(lines) + "\n```"


def _about(notebook: Path, executed: Any | None) -> str:
    """Return how this page came to be."""
    if executed is None:
        return (
            '!!! note "Not executed"\n'
            f"    This page was made without running `notebooks/{notebook.name}`, so it has no outputs. "
            "`make docs` runs it."
        )
    seconds = executed.metadata["medclip"]["cpu_seconds"]
    return (
        '!!! info "A notebook"\n'
        f"    This page is `notebooks/{notebook.name}` with what it showed when the site was built, in {seconds:.0f} "
        "seconds of processor time. Run it yourself from a clone: `pip install '.[notebooks]'`, then "
        f"`jupytext --to ipynb notebooks/{notebook.name}` and open it in Jupyter or an editor."
    )
