from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from medclip.evaluation.zero_shot.compared_packs import ComparedPacks, compare_packs
from medclip.evaluation.zero_shot.figures import set_figures
from medclip.evaluation.zero_shot.suite import ClassFile, SetFile

_OTHER = SimpleNamespace(model="rival", model_version="1", model_digest="abc", num_in_training=0)


def _part(name: str) -> SetFile:
    classes = (ClassFile(name="no", prompts=("no thing",)), ClassFile(name="yes", prompts=("a thing",)))
    return SetFile(id=name, group="g", modality="xray", classes=classes)  # type: ignore[arg-type]


def _table(labels: np.ndarray, right: np.ndarray, patients: list[str | None]) -> pa.Table:
    predicted = np.where(right, labels, 1 - labels)
    scores = [[float(1 - p), float(p)] for p in predicted]
    names = ["yes" if label else "no" for label in labels]
    return pa.table({"row": range(1, len(labels) + 1), "patient": patients, "label": names, "scores": scores})


def _sets(num: int = 120) -> tuple[list[SetFile], dict[str, pa.Table], dict[str, pa.Table]]:
    rng = np.random.default_rng(3)
    parts, own, other = [_part("a"), _part("b")], {}, {}
    for part in parts:
        labels = np.arange(num) % 2
        patients: list[str | None] = [f"{part.id}{n // 2}" for n in range(num)]
        good = rng.random(num) < 0.9
        own[part.id] = _table(labels, good, patients)
        other[part.id] = _table(labels, good & (rng.random(num) < 0.85), patients)
    return parts, own, other


def _compare(num_resamples: int = 400) -> tuple[ComparedPacks, dict[str, pa.Table], dict[str, pa.Table]]:
    parts, own, other = _sets()
    return compare_packs(parts, own, other, _OTHER, num_resamples=num_resamples), own, other


def _right(table: pa.Table) -> np.ndarray:
    return np.array([(row["scores"][1] > 0.5) == (row["label"] == "yes") for row in table.to_pylist()])


def test_differences_are_paired_so_that_they_are_narrower_than_two_separate_intervals() -> None:
    result, own, other = _compare()
    for row in result.sets:
        gap = _right(own[row.id]).mean() - _right(other[row.id]).mean()
        assert row.difference.value == pytest.approx(gap, abs=1e-4)
        half = (row.difference.high - row.difference.low) / 2  # type: ignore[operator]
        separate = [(f.high - f.low) / 2 for f in (row.own, row.other)]  # type: ignore[operator]
        assert half < 0.9 * np.hypot(*separate)
        # by hand: the difference of each patient's right answers is resampled
        apart = (_right(own[row.id]) * 1.0 - _right(other[row.id])).reshape(-1, 2).sum(axis=1)
        error = apart.std(ddof=1) * np.sqrt(len(apart)) / (2 * len(apart))
        assert half == pytest.approx(2.0 * error, rel=0.15)
        assert row.difference.p is not None
        assert row.difference.p < 0.05


def test_the_mean_is_over_sets_and_narrower_than_one_of_them() -> None:
    result, _, _ = _compare()
    assert result.mean is not None
    assert result.mean.difference.value == pytest.approx(np.mean([r.difference.value for r in result.sets]), abs=1e-4)
    widths = [r.difference.high - r.difference.low for r in (*result.sets, result.mean)]  # type: ignore[operator]
    assert widths[2] == pytest.approx(np.hypot(*widths[:2]) / 2, rel=0.12)
    assert (result.mean.num_images, result.mean.num_patients) == (240, 120)


def test_patients_who_are_in_both_sets_are_resampled_together() -> None:
    parts, own, other = _sets()
    twice = [{"a": tables["a"], "b": tables["a"]} for tables in (own, other)]
    result = compare_packs(parts, *twice, _OTHER, num_resamples=400)
    assert result.mean is not None
    assert result.mean.num_patients == 60
    one, average = result.sets[0].difference, result.mean.difference
    # a second copy of the same set tells nothing new
    assert average.high - average.low == pytest.approx(one.high - one.low, rel=0.1)  # type: ignore[operator]


def test_the_figure_of_a_set_has_the_interval_that_the_evaluation_gives_it() -> None:
    parts, own, other = _sets()
    result = compare_packs(parts[:1], own, other, _OTHER, num_resamples=400)
    labels = np.arange(120) % 2
    scores = np.array(own["a"].column("scores").to_pylist())
    alone = set_figures(labels, scores, [n // 2 for n in range(120)], num_resamples=400)
    assert result.sets[0].own == alone["accuracy"]
    assert result.mean is None


def test_a_pack_does_not_differ_from_itself() -> None:
    parts, own, _ = _sets()
    result = compare_packs(parts, own, own, _OTHER, num_resamples=100)
    assert [row.difference.value for row in result.rows()] == [0.0, 0.0, 0.0]
    assert {row.difference.p for row in result.rows()} == {1.0}


def test_images_that_one_pack_could_not_read_are_in_neither_figure_and_counted() -> None:
    parts, own, other = _sets()
    scores = other["a"].column("scores").to_pylist()
    scores[:3] = [None, None, None]
    other["a"] = other["a"].set_column(3, "scores", pa.array(scores, pa.list_(pa.float64())))
    result = compare_packs(parts, own, other, _OTHER, num_resamples=50)
    assert (result.sets[0].num_images, result.sets[0].num_left_out) == (117, 3)
    assert result.sets[0].own.value == pytest.approx(_right(own["a"])[3:].mean(), abs=1e-4)
    assert "3 images that only one of the packs could read" in result.notes[0]


def test_the_table_names_both_packs_and_what_is_less_than_what() -> None:
    result, _, _ = _compare(50)
    lines = list(result.lines("mine 2"))
    assert lines[0] == "mine 2 less rival 1, on the same images and patients"
    assert len(lines) == 2 + 3
    assert re.search(r"mine 2 +rival 1 +difference", lines[1])
    seen = SimpleNamespace(**{**vars(_OTHER), "num_in_training": 4})
    parts, own, other = _sets()
    assert "rival's training data" in compare_packs(parts, own, other, seen, num_resamples=50).notes[0]


def test_packs_of_one_name_are_told_apart_and_no_column_runs_into_the_next() -> None:
    result, _, _ = _compare(50)
    assert result.mean is not None
    mixed = replace(result, mean=replace(result.mean, metric="balanced_accuracy and auroc and accuracy"))
    lines = list(mixed.lines(f"{result.model} {result.model_version}"))
    assert re.search(rf"rival 1 +rival 1 \({result.model_digest[:7]}\) +difference", lines[1])
    assert f"{result.mean.num_images}  balanced accuracy and auroc and accuracy  " in lines[-1]
    assert len({len(line) for line in lines[1:]}) == 1
