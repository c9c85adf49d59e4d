"""The page of a recipe's options has one line for each field of the schema and each loss, with its default."""

from __future__ import annotations

import re
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medclip.training.losses import LOSSES
from medclip.training.recipe.schema import Recipe

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/recipe.md"
ROW = re.compile(r"^\| `([\w.]+)` \| `([^|]*)` \| (.+) \|$", re.M)
MEASURED = re.compile(r"^\| `([\w.]+)` \| ([^`|][^|]*) \| ([^|]+) \| ([^|]+) \|$", re.M)


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections(part)


def fields(section: type[BaseModel], before: str) -> Iterator[tuple[str, tuple[str, type[BaseModel], str | None]]]:
    """Yield the path of each field, with its default as the page writes it, its section and its name."""
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)  # type: ignore[call-arg]
        inside = list(sections(field.annotation))
        written = "section" if isinstance(default, BaseModel) else str(default).replace("|", "or")
        yield before + name, (written, section, name)
        for one in inside:
            yield from fields(one, f"{before}{name}.")


def options() -> dict[str, tuple[str, type[BaseModel] | None, str | None]]:
    """Return every option of a recipe: fields by path, and losses below `losses`."""
    every: dict[str, tuple[str, type[BaseModel] | None, str | None]] = dict(fields(Recipe, ""))
    for name, row in LOSSES.items():
        every[f"losses.{name}"] = ("off" if row.section is not None else "as its section", row.section, None)
        if row.section is not None:
            every |= dict(fields(row.section, f"losses.{name}."))
    return every


def cells_of(table: re.Pattern[str]) -> list[tuple[str, ...]]:
    return [row.groups() for row in table.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_option_stands_in_the_table_once():
    counts = Counter(row[0] for row in cells_of(ROW))
    assert set(options()) - set(counts) == set(), "options without a line"
    assert set(counts) - set(options()) == set(), "lines of no option"
    assert [name for name, count in counts.items() if count > 1] == []


def test_defaults_are_those_of_the_schema():
    every = options()
    assert {name: default for name, default, *_ in cells_of(ROW)} == {name: of[0] for name, of in every.items()}


def test_what_was_measured_is_of_an_option_and_links_a_page():
    measured = cells_of(MEASURED)
    assert len(measured) > 10
    for name, time, memory, quality in measured:
        assert name in options()
        assert "](" in quality, f"{name} claims {quality!r} and links no page"
        assert {time, memory, quality.partition(" [")[0]} != {"not measured"}, name
