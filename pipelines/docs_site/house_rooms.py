"""The rooms on the page of the house: a hook of mkdocs makes the table of the first sentence of each `__init__`."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PAGE = "concepts/the_house.md"
MARK = "<!-- rooms -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Insert the table into its page."""
    return markdown.replace(MARK, rooms_table()) if page.file.src_uri == PAGE else markdown


def rooms_table() -> str:
    """Return the rooms from top to bottom, each with its sub-rooms below it, in Markdown."""
    lines = ["| room | what is in it, and what is not |", "|---|---|"]
    for folder in _rooms():
        lines.append(f"| `{folder.relative_to(REPOSITORY)}/` | {first_sentence(folder)} |")
        inside = sorted(path.parent for path in folder.rglob("__init__.py") if path.parent != folder)
        lines += [f"| &emsp;`{sub.relative_to(folder)}/` | {first_sentence(sub)} |" for sub in inside]
    return "\n".join(lines)


def first_sentence(folder: Path) -> str:
    """Return what the first paragraph of a package's docstring says."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def _rooms() -> Iterator[Path]:
    """Yield the folders of the layers that import-linter holds, from top to bottom."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    for layer in settings["tool"]["importlinter"]["contracts"][0]["layers"]:
        folder = REPOSITORY.joinpath(*layer.split("."))
        if ":" not in layer and folder.is_dir():
            yield folder
