"""What the documentation names exists: files, links, pages of the navigation, command-line options."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from medclip.cli import main as cli
from medclip.cli.derive import spellings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "benchmarks" / "README.md",
]
TOP = ("medclip", "pipelines", "notebooks", "docs", "tests", "benchmarks", "examples", "deploy", ".ci")
ids = {"ids": lambda p: p.relative_to(REPOSITORY).as_posix()}
# Options of other programs.
FOREIGN = {
    *("--no-deps", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--shm-size"),
    *("--read-only", "--tmpfs", "--user", "--userns"),
}


OPTIONS_PAGE = "reference/options.md"
"""What commands declare; the site makes it."""
FORMER = {"--format", "--not"}
"""What the changelog says that options were called before."""


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_relative_link_and_image_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists() or _is_made((page.parent / target).resolve()), target


def _is_made(path: Path) -> bool:
    """Whether the site makes this page: of a notebook, or of the options that commands declare."""
    if path == REPOSITORY / "docs" / OPTIONS_PAGE:
        return True
    return path.parent == REPOSITORY / "docs" / "notebooks" and (REPOSITORY / "notebooks" / f"{path.stem}.py").exists()


@pytest.mark.parametrize("notebook", sorted((REPOSITORY / "notebooks").glob("*.py")), **ids)
def test_every_link_of_a_notebook_leads_to_a_page(notebook: Path):
    prose = "".join(
        line for line in notebook.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#")
    )
    targets = re.findall(r"\]\(([^)#\s]+)", prose)
    assert all(target.startswith("../docs/") and (notebook.parent / target).exists() for target in targets), targets


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_path_in_backticks_exists(page: Path):
    for name in re.findall(r"`([^`\s]+)`", prose(page)):
        first = name.split("/")[0]
        if "/" in name and first in TOP and not re.search(r"[<>{}*$]|\.\.\.", name):
            assert (REPOSITORY / name.partition("::")[0]).exists(), name  # a test: tests/docs/test_security_page.py
        if re.fullmatch(r"medclip(\.[a-z_]+)+", name) and name != "medclip.toml":  # a file of settings
            parts = name.split(".")
            here = REPOSITORY.joinpath(*parts)
            attribute = REPOSITORY.joinpath(*parts[:-1])
            import medclip

            face = medclip if parts[1] in medclip.__all__ else None
            for part in parts[1:]:
                face = getattr(face, part, None)
            known = here.is_dir() or here.with_suffix(".py").exists() or face is not None
            assert known or attribute.with_suffix(".py").exists(), name


@cache
def options_of_commands() -> set[str]:
    """Every option of every command, also those that short help leaves out."""
    known = {"--help", "--help-all", "--version"}
    for target, _ in cli.COMMANDS.values():
        module, _, function = target.partition(":")
        declared = getattr(import_module(module), function).options.values()
        known |= {word for one in declared if not one.is_argument for word in spellings(one)[0].split("/")}
    return known


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_option_in_backticks_is_an_option_of_a_command(page: Path):
    named = set(re.findall(r"`(--[a-z][a-z-]*)", prose(page))) - FOREIGN
    former = FORMER if page.name == "CHANGELOG.md" else set()
    assert not named - options_of_commands() - former
    assert not FORMER & options_of_commands()


def sections_of_the_navigation() -> dict[str, list[str]]:
    """Return the pages of each section, in its order; the pages of a section's own come before its sub-sections."""
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    sections: dict[str, list[str]] = {}

    def walk(name: str, node: str | list[Any]) -> None:
        for child in [node] if isinstance(node, str) else node:
            if isinstance(child, str):
                sections.setdefault(name, []).append(child)
            else:
                ((inner, inside),) = child.items()
                walk(inner, inside)

    walk("", yaml.safe_load(re.sub(r"!!python\S*", "", text))["nav"])
    return sections


def title_of(page: str) -> str:
    if page == OPTIONS_PAGE:
        return "Options of every command"
    is_notebook = page.startswith("notebooks/")
    file = (REPOSITORY / page).with_suffix(".py") if is_notebook else REPOSITORY / "docs" / page
    title, *_ = re.findall(r"^# # (.+)$" if is_notebook else r"^# (.+)$", file.read_text(encoding="utf-8"), flags=re.M)
    return title


def test_every_page_is_in_the_navigation_and_every_entry_has_a_page():
    docs = REPOSITORY / "docs"
    pages = [p.relative_to(docs).as_posix() for p in docs.rglob("*.md")]
    made = [f"notebooks/{p.stem}.md" for p in (REPOSITORY / "notebooks").glob("*.py")] + [OPTIONS_PAGE]
    entries = [page for pages_of_one in sections_of_the_navigation().values() for page in pages_of_one]
    assert sorted(entries) == sorted(pages + made)


def test_the_first_page_lists_every_page_by_its_title_in_the_order_of_the_navigation():
    listed = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8").partition("## All pages\n")[2]
    entries = re.findall(r"\*\*(.+?)\*\*: (.*?)(?=\n- |\Z)", listed, flags=re.S)
    links = {name: re.findall(r"\[([^\]]+)\]\(([^)]+)\)", text) for name, text in entries}
    sections = {name: pages for name, pages in sections_of_the_navigation().items() if name != "Home"}
    assert links == {name: [(title_of(page), page) for page in pages] for name, pages in sections.items()}


def test_the_table_reference_names_every_column():
    from dataclasses import fields

    from medclip.runs.rows import FileRow, ScoreRow

    page = (REPOSITORY / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    for kind in (FileRow, ScoreRow):
        missing = [f.name for f in fields(kind) if f"`{f.name.rstrip('_')}`" not in page]
        assert not missing


def test_the_reasons_page_names_every_reason_a_row_can_have():
    from medclip.errors import Reason

    page = (REPOSITORY / "docs" / "concepts" / "one_row_per_file.md").read_text(encoding="utf-8")
    of_rows = list(Reason)[: list(Reason).index(Reason.WRONG_USE)]
    assert not [reason for reason in of_rows if f"`{reason}`" not in page]


def test_the_glossary_explains_every_argument_that_all_verbs_share():
    from tests.test_declarations import GLOSSARY

    page = (REPOSITORY / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    assert not [name for name in GLOSSARY if f"| `{name}` |" not in page]


def test_every_name_of_the_python_reference_exists():
    """One that was renamed leaves the whole site unbuilt: mkdocstrings stops at the first that it cannot find."""
    page = (REPOSITORY / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: (\S+)$", page, re.M)
    assert len(names) > 200
    missing = []
    for name in names:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing
