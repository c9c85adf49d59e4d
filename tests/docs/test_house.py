"""The page of the house is made of what each room says of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.docs_site.house_rooms import MARK, PAGE, REPOSITORY, first_sentence, on_page_markdown, rooms_table

FOLDERS = sorted(path.parent for path in (REPOSITORY / "medclip").glob("*/**/__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(REPOSITORY).as_posix())
def test_each_room_begins_with_one_short_sentence(folder: Path) -> None:
    sentence = first_sentence(folder)
    assert sentence.endswith(".")
    assert len(sentence) < 150
    assert "|" not in sentence


def test_the_page_has_every_room_and_sub_room() -> None:
    text = (REPOSITORY / "docs" / PAGE).read_text(encoding="utf-8")
    page = SimpleNamespace(file=SimpleNamespace(src_uri=PAGE))
    shown = on_page_markdown(text, page, config=None)
    assert MARK in text
    assert MARK not in shown
    table = rooms_table()
    assert table in shown
    assert len(table.splitlines()) == len(FOLDERS) + 2
    assert on_page_markdown(MARK, SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))) == MARK
