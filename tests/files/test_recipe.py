"""Recipes from outside: nested without end, or full of aliases, they are refused in a moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import medclip
from medclip.errors import MedclipError
from medclip.files.key_value import read_value
from medclip.recipe import read_yaml
from medclip.text.vocabulary.load import parse_task

NESTED = "[" * 5000 + "]" * 5000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)
"""A billion laughs and many more: 9 to the 21st, if anybody wrote the aliases out."""


@pytest.mark.parametrize("nested", [NESTED, '{"a": ' * 5000 + "1" + "}" * 5000])
def test_yaml_that_nests_without_end_is_refused_with_a_sentence(tmp_path: Path, nested: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(nested)
    for read in (
        lambda: read_yaml(path),
        lambda: parse_task(nested, where="task.yaml"),
        lambda: read_value(nested, "--set"),
        lambda: medclip.audit(path, out=tmp_path / "audit"),
    ):
        with pytest.raises(MedclipError, match="YAML"):
            read()


def test_aliases_are_not_written_out(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(LAUGHS)
    started = time.monotonic()
    assert len(read_yaml(path)) == 21
    for read in (
        lambda: parse_task(LAUGHS, where="task.yaml"),
        lambda: medclip.audit(path, out=tmp_path / "audit"),
        lambda: medclip.pretrain(path),
        lambda: medclip.evaluate("medclip-mini", suite=path, out=tmp_path / "e"),
    ):
        with pytest.raises(MedclipError) as caught:
            read()
        assert len(str(caught.value)) < 2000
    assert time.monotonic() - started < 30
