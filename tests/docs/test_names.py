"""What the documentation names exists: files, links, pages of the navigation, command-line options."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

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
FOREIGN = {"--no-deps", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--shm-size"}


FORMER = {
    *(
        "--csv",
        "--max-side",
        "--mpp",
        "--n",
        "--no-words",
        "--patch-mpp",
        "--processes",
        "--results-as",
        "--results-to",
    ),
    *("--retry-failed", "--run-images", "--sets", "--split-seed", "--store-to", "--top", "--views"),
}
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
    if path == REPOSITORY / "docs" / "reference" / "options.md":
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
