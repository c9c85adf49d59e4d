"""SECURITY.md names the tests that show what it says; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def named(repository: Path) -> list[str]:
    return re.findall(r"`(tests/[^`\s]+)`", (repository / "SECURITY.md").read_text(encoding="utf-8"))


def test_every_test_that_the_page_names_exists(named: list[str], repository: Path) -> None:
    assert len(named) > 40
    lacking = []
    for name in named:
        file, _, function = name.partition("::")
        tree = ast.parse((repository / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if function not in functions and (function or not any(f.startswith("test_") for f in functions)):
            lacking.append(name)
    assert lacking == []


def test_every_promise_of_a_defence_names_a_test(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    tables = re.findall(r"\| what \|[^\n]*\| test \|\n\|[-|]+\|\n((?:\|[^\n]+\n)+)", text)
    assert len(tables) == 5
    rows = [row for table in tables for row in table.splitlines()]
    assert [row for row in rows if "`tests/" not in row.rsplit(" | ", 1)[-1]] == []


def test_every_link_of_the_page_leads_somewhere(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        page = (repository / path) if path else repository / "SECURITY.md"
        assert page.is_file(), target
        headings = {
            re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in page.read_text(encoding="utf-8").splitlines()
            if line.startswith("#")
        }
        assert not anchor or anchor in headings, target
