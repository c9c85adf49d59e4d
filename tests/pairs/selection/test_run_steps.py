"""Steps are read from a file, asked in their order, each about what is kept, and every pair ends in one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.pairs.pile import Pile
from medclip.pairs.selection.run_steps import read_steps, run_steps
from medclip.pairs.selection.steps import FILTERS, Context, Filter, FilterSettings, Verdict
from medclip.settings import Settings
from tests.kits.piles import pile_of


class Longer(FilterSettings):
    than: int = 1
    weight: float = 1.0


class Strange(FilterSettings):
    answer: str = "short"


def longer(pile: Pile, rows_M: NDArray[np.int64], settings: Longer, context: Context, number: int) -> Verdict:
    lengths = np.array([len(text) for text in pile.cells("text", rows_M)], float)
    kept_M = lengths > settings.than
    lengths[lengths == 1] = np.nan
    return Verdict(kept_M, lengths, np.full(len(rows_M), settings.weight), {"of": len(rows_M)}, (f"step {number}",))


def every(pile: Pile, rows_M: NDArray[np.int64], settings: FilterSettings, context: Context, number: int) -> Verdict:
    assert len(rows_M), "a step is not asked about nothing"
    return Verdict(np.ones(len(rows_M), bool))


def strange(pile: Pile, rows_M: NDArray[np.int64], settings: Strange, context: Context, number: int) -> Verdict:
    kept = np.ones(len(rows_M), bool)
    return {
        "short": Verdict(kept[:-1]),
        "numbers": Verdict(kept.astype(float)),  # type: ignore[arg-type]
        "negative": Verdict(kept, weight_M=-np.ones(len(rows_M))),
        "infinite": Verdict(kept, weight_M=np.full(len(rows_M), np.inf)),
    }[settings.answer]


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("longer", "Longer"), ("every", "Longer"), ("strange", "Strange")):
        monkeypatch.setitem(FILTERS, name, Filter("", f"{__name__}:{kind}", f"{__name__}:{name}"))


PILE = pile_of(
    {
        "text": ["a", "bb", "ccc", "dddd", "ee"],
        "modality": ["xray", "xray", "xray", "xray", "ct"],
        "source": ["s", "s", "", "s", "s"],
        "split": ["train"] * 4 + ["val"],
    }
)


def run(*steps: Any) -> Any:
    return run_steps(PILE, read_steps({"steps": list(steps)}), settings=Settings(workers=1))


def test_every_pair_is_kept_or_dropped_by_one_step_with_its_value() -> None:
    report = run({"longer": {"than": 1}}, {"every": {}}, {"longer": {"than": 2, "weight": 0.5}})
    rows = report.selection.table.to_pylist()
    assert [row["key"] for row in rows] == PILE.cells("key")
    assert [row["kept"] for row in rows] == [False, False, True, True, False]
    assert [row["dropped_by"] for row in rows] == ["longer", "longer", "", "", "longer"]
    np.testing.assert_array_equal([row["value"] for row in rows], [np.nan, 2, 3, 4, 2])
    assert [row["weight"] for row in rows] == [1, 1, 0.5, 0.5, 1]
    assert [(step.name, step.num_rows, step.num_kept) for step in report.steps] == [
        ("longer", 5, 4),
        ("every", 4, 4),
        ("longer", 4, 2),
    ]
    assert report.steps[2].facts == {"of": 4}
    assert report.notes == ("longer: step 1", "longer: step 3")


def test_weights_of_steps_multiply() -> None:
    report = run({"longer": {"than": 0, "weight": 0.5}}, {"longer": {"than": 1, "weight": 3}})
    assert report.selection.weight_N.tolist() == [0.5, 1.5, 1.5, 1.5, 1.5]


def test_what_is_kept_is_counted_by_modality_source_and_split() -> None:
    report = run({"longer": {"than": 2}})
    assert report.by == {
        "modality": {"xray": (4, 2), "ct": (1, 0)},
        "source": {"s": (4, 1), "": (1, 1)},
        "split": {"train": (4, 2), "val": (1, 0)},
    }
    assert report.to_pandas().query("by == 'source'")["share"].tolist() == [0.25, 1.0]


def test_a_modality_that_is_dropped_altogether_leads_what_is_said() -> None:
    report = run({"longer": {"than": 2}})
    assert report.cautions == ("Every pair of the modality ct is dropped: 1 by longer.",)
    assert repr(report).splitlines()[1].startswith("  caution: Every pair of the modality ct")
    assert next(iter(report.to_dict())) == "cautions"
    json.dumps(report.to_dict())


def test_where_everything_is_dropped_later_steps_are_not_asked() -> None:
    report = run({"longer": {"than": 9}}, {"every": {}})
    assert report.cautions == ("Nothing is kept: 5 by longer.",)
    assert [step.num_rows for step in report.steps] == [5, 0]


def test_a_run_is_repeated_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "select.yaml"
    path.write_text("seed: 7\nsteps:\n  - every\n  - longer: {than: 2, weight: 1}\n  - every:\n")
    steps = read_steps(path)
    assert (steps.seed, steps.folder) == (7, tmp_path)
    assert steps.to_dict() == {"seed": 7, "steps": [{"every": {}}, {"longer": {"than": 2}}, {"every": {}}]}
    assert run_steps(PILE, steps).selection.steps == steps.to_dict()


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("steps: [{longr: {}}]", "no step named 'longr'", "Did you mean 'longer'"),
        ("steps: [{longer: {thn: 1}}]", "thn: is not a key of the step longer", "than"),
        ("steps: [{longer: {than: many}}]", "than: is 'many'", ""),
        ("steps: [{longer: {}, every: {}}]", "step 1 names 'longer' and 'every'", "dash"),
        ("steps: [{}]", "step 1 names nothing", "dash"),
        ("steps: []", "steps: ", ""),
        ("stps: [every]", "stps: is not a key", "steps"),
        ("seed: -1\nsteps: [every]", "seed: ", ""),
        ("steps: every", "steps: ", ""),
        ("steps: [3]", "steps.0", ""),
        ("steps: [", "not YAML", ""),
    ],
)
def test_a_file_that_no_step_understands_is_refused(tmp_path: Path, text: str, sentence: str, hint: str) -> None:
    path = tmp_path / "select.yaml"
    path.write_text(text)
    with pytest.raises(MedclipError, match=sentence) as e:
        read_steps(path)
    assert e.value.reason is Reason.RECIPE_INVALID
    assert hint in (e.value.hint or "")


@pytest.mark.parametrize("answer", ["short", "numbers", "negative", "infinite"])
def test_an_answer_that_no_step_may_have_is_a_fault_of_the_step(answer: str) -> None:
    with pytest.raises(ValueError, match="the step 'strange' must answer"):
        run({"strange": {"answer": answer}})


def test_every_row_of_the_table_names_what_is_there() -> None:
    from medclip.lazy import import_name

    for row in FILTERS.values():
        assert issubclass(import_name(row.settings), FilterSettings)
        assert callable(import_name(row.target))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"deduplicate": {"evaluation": ["held_out"]}}, Reason.MISSING_FILE),
        ({"deduplicate": {"model": "no-pack"}}, Reason.PACK_NOT_FOUND),
        ({"clip_score": {"model": "no-pack", "fraction": 0.5}}, Reason.PACK_NOT_FOUND),
        ({"image": {"target": "target"}}, Reason.MISSING_FILE),
        ({"concept": {"labels": "labels.csv", "keep": ["x"]}}, Reason.MISSING_FILE),
        ({"cap": {"num": 1, "labels": "labels.csv"}}, Reason.MISSING_FILE),
        ({"text": {"metadata": "mesh.xml"}}, Reason.MISSING_FILE),
        ({"balance": {"metadata": "mesh.xml"}}, Reason.MISSING_FILE),
        ({"rebalance": {"metadata": "mesh.xml"}}, Reason.MISSING_FILE),
    ],
)
def test_what_a_later_step_names_and_is_not_there_is_refused_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, step: dict[str, Any], reason: Reason
) -> None:
    def first(*_: Any) -> Verdict:
        raise AssertionError("the first step was asked")

    monkeypatch.setattr("medclip.pairs.selection.basic.basic", first)
    with pytest.raises(MedclipError) as refused:
        run_steps(pile_of({"text": ["An effusion."]}), read_steps({"steps": ["basic", step]}))
    assert refused.value.reason is reason
