"""No sentence of pydantic's reaches a user: whatever is wrong is said in words of the field."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import medclip
from medclip.auditing.thresholds.choose import read_thresholds
from medclip.errors import MedclipError
from medclip.evaluation.zero_shot.suite import load_suite
from medclip.models.packs.card import read_card
from medclip.sample import Modality
from medclip.schema_faults import faults_of
from medclip.text.vocabulary.load import parse_task
from medclip.training.recipe.schema import load_recipe

FOREIGN = ("Input", "Field", "valid", "permitted", "pydantic", "http", "instance", "parse")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "a"


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)
    whole: int = 1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    above: Annotated[float, Field(gt=0)] = 1
    below: Annotated[int, Field(lt=9)] = 1
    kind: Literal["clip", "siglip", "or"] = "clip"
    modality: Modality = Modality.CT
    flag: bool = False
    text: str = ""
    short: Annotated[str, Field(min_length=2, max_length=4)] = "abc"
    several: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    part: Part = Part()
    parts: list[Part] = []
    path: Path = Path()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"whole": "many"}, "whole: is 'many', and must be a whole number"),
        ({"whole": 1.5}, "whole: is 1.5, and must be a whole number"),
        ({"whole": None}, "whole: is null, and must be a whole number"),
        ({"share": 2}, "share: is 2, and must be 1 or less"),
        ({"share": -1}, "share: is -1, and must be 0 or more"),
        ({"share": "x" * 50}, "share: is a long text, and must be a number"),
        ({"above": 0}, "above: is 0, and must be more than 0"),
        ({"below": 9}, "below: is 9, and must be less than 9"),
        ({"kind": "clap"}, "kind: is 'clap', and must be clip, siglip or or"),
        ({"flag": "perhaps"}, "flag: is 'perhaps', and must be true or false"),
        ({"flag": 7}, "flag: is 7, and must be true or false"),
        ({"text": 3}, "text: is 3, and must be text"),
        ({"short": "a"}, "short: is 'a', and must be text of 2 or more letters"),
        ({"short": "abcde"}, "short: is 'abcde', and must be text of 4 letters or less"),
        ({"several": []}, "several: is a list of 0, and must be a list of 1 or more"),
        ({"several": ["a"] * 3}, "several: is a list of 3, and must be a list of 2 or less"),
        ({"several": "a"}, "several: is 'a', and must be a list"),
        ({"part": 3}, "part: is 3, and must be a mapping of keys to values"),
        (
            {"part": {"name": "B c"}},
            "part.name: is 'B c', and must be a name of small letters, digits and underscores that "
            "begins with a letter",
        ),
        ({"path": 3}, "path: is 3, and must be a path"),
        ([1], "a recipe is a list of 1, and must be a mapping of keys to values"),
        ({"wohle": 1}, "wohle: is not a key of a recipe"),
        (
            {f"k{n}": 1 for n in range(5)},
            "k0: is not a key of a recipe; k1: is not a key of a recipe; k2: is not a key of a recipe (and 2 more)",
        ),
    ],
)
def test_each_fault_is_a_clause_of_ours(values: object, expected: str):
    with pytest.raises(ValidationError) as invalid:
        Form.model_validate(values)
    assert faults_of(invalid.value, Form, "a recipe")[0] == expected


def test_words_of_a_closed_list_are_named_and_close_keys_asked_for_in_lists_too():
    with pytest.raises(ValidationError) as invalid:
        Form.model_validate({"modality": "sonar", "parts": [{"nane": "a"}]})
    clauses, hint = faults_of(invalid.value, Form, "a recipe")
    assert clauses.startswith("modality: is 'sonar', and must be xray, mammography, ct,")
    assert hint == "Did you mean 'name'?"


def refusals(folder: Path) -> list[str]:
    """Break each kind of file that pydantic checks."""
    (folder / "card.json").write_text(json.dumps({"name": 3, "tasks": {"a": {}}, "nane": 1}))
    (folder / "t.json").write_text('{"format": "1", "thresholds": 3}')
    (folder / "broken.json").write_text("{")
    (folder / "suite.yaml").write_text("name: [\n3]\nsets: 3\n")
    (folder / "r.yaml").write_text("name: m\ndata: {shards: s, workers: many}\ntrain: {export: worst}\n")
    (folder / "a.yaml").write_text("scores: s.csv\nnum_resamples: few\nmin_cell: 0\nlabel: {a: 1}\nattacker: perhaps\n")
    calls = (
        lambda: read_card(folder),
        lambda: read_thresholds(folder / "t.json"),
        lambda: read_thresholds(folder / "broken.json"),
        lambda: load_suite(folder / "suite.yaml"),
        lambda: load_recipe(folder / "r.yaml"),
        lambda: medclip.audit(folder / "a.yaml"),
        lambda: parse_task("name: a\nkind: sometimes\nclasses: 3\n"),
    )
    texts = []
    for call in calls:
        with pytest.raises(MedclipError) as refused:
            call()
        texts.append(str(refused.value))
    return texts


def test_no_file_that_is_checked_is_refused_in_words_of_pydantic(tmp_path: Path):
    for text in refusals(tmp_path):
        spoken = text.replace("is not valid", "")
        assert not [word for word in FOREIGN if word in spoken], text


def test_there_is_one_translator(repository: Path):
    """Whoever reads `fault["msg"]` writes sentences of his own."""
    users = {
        path.name
        for path in (repository / "medclip").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == "msg"
    }
    assert users == {"schema_faults.py"}
