"""Comparisons whose answers are planted, so that every figure can be told beforehand: sign, mean, p, harmonic means."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medclip.evaluation.few_shot import compare as few_shot
from medclip.evaluation.few_shot import protocol as few_shot_plan
from medclip.evaluation.few_shot.compare import Compared
from medclip.evaluation.few_shot.comparison import Novel, Paired
from medclip.evaluation.few_shot.method_run import Run
from medclip.evaluation.few_shot.protocol import NOVEL, Design, Protocol, RunKey, make_protocol
from medclip.evaluation.few_shot.summary import Values, cells_of, differences_of, novel_of, spread, values_of
from medclip.files.output import digest_of
from medclip.statistics.metrics.classification import HeldOut
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.few_shot import compare_methods, table
from tests.kits.scoring import make_pack

B = 500


def answers(targets: NDArray[np.int64], right: NDArray[np.bool_], num_classes: int) -> NDArray[np.float32]:
    """Logits that name the true class where `right`, and the next one elsewhere."""
    said = np.where(right, targets, (targets + 1) % num_classes)
    return np.eye(num_classes, dtype=np.float32)[said]


def share_right(targets: NDArray[np.int64], tenths: int) -> NDArray[np.bool_]:
    """Right in the first of every ten images of each class."""
    rank = np.zeros(len(targets), np.int64)
    for c in np.unique(targets):
        rank[targets == c] = np.arange((targets == c).sum())
    return rank % 10 < tenths


def made(num_classes: int = 2, of_each: int = 20) -> HeldOut:
    targets = np.repeat(np.arange(num_classes), of_each)
    return HeldOut(targets, np.arange(len(targets)), num_classes)


def planted(protocol: Protocol, test: HeldOut, tenths: Callable[[RunKey], int]) -> Values:
    def run(key: RunKey) -> Run:
        return Run(answers(test.targets, share_right(test.targets, tenths(key)), test.num_classes), None, {})

    weights_PB = draw_weights(test.num_patients, B, seed=0)
    return values_of(protocol, {key: run(key) for key in list(protocol.keys())}, test, weights_PB)


def compared_with_zero_shot(tenths: dict[str, int]) -> dict[str, Paired]:
    test, protocol = made(), make_protocol(Design(list(tenths), shots=(4,), seeds=3, references=["zero-shot"]))
    found = differences_of(protocol, planted(protocol, test, lambda key: tenths[key.label]))
    return {d.method: d for d in found if d.metric == "balanced_accuracy" and d.shots == 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("planted")
    return make_pack(folder / "tiny"), table(folder / "data")


RIGHT: dict[str, int] = {"zero-shot": 2, "ridge": 3, "knn": 0, "lda": 2}
"""Of the first three images of each class, how many each method gets right; all others are wrong."""


def compare_planted(
    place: tuple[Path, Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: list[Any] | None = None,
    **options: Any,
) -> Compared:
    def run_job(base: Any, examples: Any, job: Any) -> Run:
        if done is not None:
            done.append(job)
        targets = examples.targets[list(job.test)]
        rank = np.array([(targets[:n] == c).sum() for n, c in enumerate(targets)])
        logits = answers(targets, rank < RIGHT[job.method], len(job.text.names))
        measured = {"fit_seconds": 0.0, "predict_seconds": 0.0, "num_trainable": 0}
        return Run(logits, None, {**job.facts, **measured})

    monkeypatch.setattr(few_shot, "run_job", run_job)
    asked: dict[str, Any] = {"methods": list(RIGHT), "shots": (1,), "seeds": 2, "num_replicates": B}
    return compare_methods(place[0], place[1], "shape", out=out, **(asked | options))


def test_paired_csv_says_who_is_better_by_how_much_and_how_surely(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compared = compare_planted(place, tmp_path / "out", monkeypatch)
    with (tmp_path / "out" / "paired.csv").open(newline="") as f:
        rows = {r["method"]: r for r in csv.DictReader(f) if r["metric"] == "accuracy" and r["shots"] == "1"}
    counts = np.bincount(compared.data.examples.targets[list(compared.data.test)])

    def accuracy(method: str) -> float:
        return np.minimum(counts, RIGHT[method]).sum() / counts.sum()

    assert set(rows) == {"ridge", "knn", "lda"}
    for method, row in rows.items():
        assert row["reference"] == "zero-shot"
        assert row["family"] == "3"
        assert float(row["value"]) == pytest.approx(accuracy(method) - accuracy("zero-shot"), abs=1e-4)
    better, worse, same = rows["ridge"], rows["knn"], rows["lda"]
    assert float(better["low"]) < float(better["value"]) < float(better["high"])
    assert float(worse["low"]) < float(worse["value"]) < float(worse["high"]) < 0
    assert float(worse["p"]) < 0.02
    # the least of three p-values counts three times
    assert float(worse["p_holm"]) == pytest.approx(3 * float(worse["p"]), abs=2e-4)
    assert 0.01 < float(better["p"]) < 1
    assert float(better["p_holm"]) == pytest.approx(min(1.0, 2 * float(better["p"])), abs=2e-4)
    assert (float(same["value"]), float(same["p"]), float(same["p_holm"])) == (0, 1, 1)


def test_p_values_are_adjusted_step_down_and_keep_their_sign():
    found = compared_with_zero_shot({"zero-shot": 5, "ridge": 9, "knn": 1, "lda": 6})
    assert [found[m].value for m in ("ridge", "knn", "lda")] == [0.4, -0.4, 0.1]
    assert [found[m].value > 0 for m in ("ridge", "knn", "lda")] == [True, False, True]
    p = found["lda"].p
    assert 0.005 < p < 0.5
    assert found["lda"].p_holm == p  # the last step
    for method in ("ridge", "knn"):
        assert found[method].p < 0.001
        assert found[method].p_holm <= 0.003


def test_a_difference_that_every_resample_gives_is_the_surest_and_has_an_interval_all_the_same():
    found = compared_with_zero_shot({"zero-shot": 0, "ridge": 10, "knn": 0, "lda": 2})
    sure, none = found["ridge"], found["knn"]
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low is not None
    assert 0.5 < sure.low < 1
    assert sure.p < 0.001
    assert (none.value, none.p, none.p_holm) == (0.0, 1.0, 1.0)
    assert {d.family for d in found.values()} == {3}


def test_spread_keeps_shots_and_initialisations_apart():
    values = np.array([[0.1, 0.1], [0.3, 0.3]])
    assert spread(values) == (pytest.approx(0.1414, abs=1e-4), 0.0)
    assert spread(values.T) == (0.0, pytest.approx(0.1414, abs=1e-4))
    assert spread(values[:1, :1]) == (None, None)


def test_the_mean_is_over_four_shots_and_more():
    test, protocol = made(), make_protocol(Design(["zero-shot", "ridge"], shots=(1, 2, 4, 8, 16), seeds=2))
    tenths = {0: 3, 1: 1, 2: 2, 4: 5, 8: 6, 16: 10}
    values = planted(protocol, test, lambda key: tenths[key.shots])
    cells = {(c.method, c.shots): c.value for c in cells_of(protocol, values) if c.metric == "balanced_accuracy"}
    assert cells["ridge", 2] == 0.2
    assert cells["ridge", None] == pytest.approx((0.5 + 0.6 + 1.0) / 3)
    assert cells["zero-shot", None] == 0.3
    mean = next(d for d in differences_of(protocol, values) if d.shots is None and d.metric == "accuracy")
    assert mean.value == pytest.approx(0.7 - 0.3)


def novel_figures(
    test: HeldOut, num_base: int, tenths: Callable[[RunKey, bool], int], *, seeds: int = 2
) -> dict[str, Novel]:
    """Plant CoOp's answers: of ten images of each class, how many are right, on the base side and the novel one."""
    protocol = make_protocol(Design(["coop"], shots=(16,), seeds=seeds, novel=True))
    runs = {}
    for key in list(protocol.keys()):
        if key.part == NOVEL:
            sides = []
            for of_base, count in ((True, num_base), (False, test.num_classes - num_base)):
                targets = test.targets[(test.targets < num_base) == of_base] - (0 if of_base else num_base)
                sides.append(answers(targets, share_right(targets, tenths(key, of_base)), count))
            runs[key] = Run(*sides, {})
    return {n.metric: n for n in novel_of(protocol, runs, test, num_base, num_replicates=B, seed=1)}


def test_answers_for_novel_classes_are_numbered_from_the_first_novel_class():
    found = novel_figures(made(5), 3, lambda key, of_base: 7 if of_base else 9)
    for metric in ("balanced_accuracy", "accuracy"):
        assert found[metric].base["value"] == pytest.approx(0.7)
        assert found[metric].novel["value"] == pytest.approx(0.9)


def test_both_harmonic_means_over_draws_are_given_by_name():
    figures = {0: (10, 5), 1: (5, 10)}
    found = novel_figures(made(4), 2, lambda key, of_base: figures[key.seed][0 if of_base else 1])["accuracy"]
    assert (found.base["value"], found.novel["value"]) == (0.75, 0.75)
    assert found.hm_of_means["value"] == 0.75
    assert found.mean_of_hms["value"] == pytest.approx(2 / 3, abs=1e-4)
    for part in (found.hm_of_means, found.mean_of_hms):
        assert part["low"] is not None
        assert part["high"] is not None
        assert part["value"] is not None
        assert part["low"] < part["value"] < part["high"]


def test_the_harmonic_mean_of_two_sides_with_other_patients_is_surer_than_either():
    found = novel_figures(made(4), 2, lambda key, _: 7)["accuracy"]
    low, high = found.hm_of_means["low"], found.hm_of_means["high"]
    assert low is not None
    assert high is not None
    assert found.base["low"] is not None
    assert found.base["low"] < low < 0.7 < high


def test_a_patient_with_images_of_base_and_novel_classes_is_drawn_once_for_both():
    targets = np.repeat(np.arange(4), 20)
    of_both = np.concatenate([np.arange(40), np.arange(40)])  # each patient: one base image, one novel
    found = novel_figures(HeldOut(targets, of_both, 4), 2, lambda key, _: 4 + key.seed, seeds=3)["accuracy"]
    # Answers are right for the same patients on both sides, so every resample has the same figure on both: their
    # harmonic mean is that figure, and knows no more.
    assert found.base == found.novel
    assert found.base["low"] is not None
    for part in (found.hm_of_means, found.mean_of_hms):
        assert part["value"] == found.base["value"]
        assert part["low"] == pytest.approx(found.base["low"], abs=0.01)


def test_a_new_version_of_a_methods_code_retires_its_runs_and_no_others(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def computed() -> list[str]:
        done: list[Any] = []
        compare_planted(place, tmp_path / "out", monkeypatch, done)
        return [job.method for job in done]

    assert set(computed()) == set(RIGHT)
    assert computed() == []
    monkeypatch.setattr(few_shot_plan, "_VERSIONS", {"ridge": 2})
    assert computed() == ["ridge", "ridge"]
    assert computed() == []


def test_runs_of_before_there_were_versions_stay(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[Any] = []
    data = compare_planted(place, tmp_path / "out", monkeypatch, done, methods=["ridge"], seeds=1).data
    learned = [[data.sha256[r] for r in side] for side in (done[0].train, done[0].val)]
    assert done[0].facts["asked"] == digest_of(["ridge", {}, 1, 0, 0, learned, data.text.names])
