"""Answers have the names that readers know and the codes that vocabularies have; ECGs have no SR of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medclip.api.score import score
from medclip.export.formats import FORMATS
from medclip.export.source_headers import WAVEFORM, encode_study
from medclip.export.study_result import OWN_SCHEME, algorithm_of, read_result
from medclip.models.packs.card import Card, read_card
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow
from tests.kits.ledger import fill_ledger
from tests.kits.mammograms import write_exams
from tests.kits.results import ALGORITHM, CREATED, drawn_study
from tests.kits.score_report import score_row

ADAPTED = {
    "task": "stones",
    "method": "ridge",
    "title": "ridge",
    "head": "linear",
    "changed_towers": False,
    "base": "tiny",
    "base_version": "1",
    "base_digest": "0" * 64,
    "shots": 4,
    "seed": 0,
    "init_seed": 0,
    "num_train": 8,
    "num_val": 0,
    "num_train_by_class": {"stone": 4},
    "num_trainable": 1,
    "shots_file": "shots.csv",
}
"""Of a card whose pack was adapted to a task of its own."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A run that asked a finding of the vocabulary, a prompt, a task that only the pack knows, and one that is gone."""
    row = FileRow(1, "1.png", None, 9, "png", "scored", None, None, "k", "xray", "header", grouping="file")
    scores = (
        score_row("k", "pneumonia", 0.1234567, "multilabel", "chest_xray_findings"),
        score_row("k", "a tube too low", 0.5, "multilabel", "prompt"),
        score_row("k", "stone", 0.25, "multilabel", "stones"),
        score_row("k", "odd_one", 0.75, "multilabel", "nobody_knows"),
    )
    with Ledger(tmp_path) as filled:
        filled.remember({"identity": {"version": "0.1.0", "pack": "a tiny pack 1.2 abc"}})
        fill_ledger(filled, (row,), scores)
        yield filled


def test_each_answer_is_named_and_coded_as_its_vocabulary_pack_or_person_names_it(ledger: Ledger) -> None:
    tasks = {"stones": {"classes": ["stone"], "title": "Kidney stones", "class_titles": {"stone": "A stone"}}}
    card = Card.model_validate({"name": "tiny", "tasks": tasks, "adapted": ADAPTED})
    result = read_result(ledger, "k", card)
    assert [(a.question.meaning, a.finding.meaning) for a in result.answers] == [
        ("Chest X-ray findings", "Pneumonia"),
        ("In your own words", "a tube too low"),
        ("Kidney stones", "A stone"),
        ("Nobody knows", "Odd one"),
    ]
    assert [a.finding.scheme for a in result.answers] == ["SCT", OWN_SCHEME, OWN_SCHEME, OWN_SCHEME]
    assert result.answers[0].finding.value == "233604007"
    assert [a.probability for a in result.answers] == [0.123457, 0.5, 0.25, 0.75]
    assert [file.path for file in result.files] == ["1.png"]


def test_a_study_is_positive_or_negative_where_the_card_has_a_threshold_and_only_there(ledger: Ledger) -> None:
    known = {"value": 0.123457, "policy": "youden", "chosen_on": "site A"}
    tasks = {
        "chest_xray_findings": {"classes": ["pneumonia", "other"], "thresholds": {"pneumonia": known}},
        "stones": {"classes": ["stone"], "thresholds": {"stone": 0.25}},
        "nobody_knows": {"classes": ["odd_one"]},
    }
    decisions = [
        a.decision for a in read_result(ledger, "k", Card.model_validate({"name": "t", "tasks": tasks})).answers
    ]
    assert [None if d is None else d.is_positive for d in decisions] == [False, None, True, None]
    assert decisions[0] is not None
    assert decisions[0].source == "threshold 0.123457 of the model card, chosen by youden on site A"


def test_an_examination_has_answers_of_its_breasts_and_of_the_images_that_count(tmp_path: Path, pack: Path) -> None:
    out = tmp_path / "out"
    run = score(write_exams(tmp_path / "in") / "twice", out, model=pack, exam=True, workers=1)
    assert run.exam_scores is not None
    rows = run.exam_scores.to_pylist()
    with Ledger(out) as ledger:
        result = read_result(ledger, rows[0]["study"], read_card(pack))
    regions = {(a.task, a.name, a.region.key): (a.region, a.probability) for a in result.answers if a.region}
    parts = [r for r in rows if r["level"] == "breast" or r["attention_exam"] is not None]
    assert len(parts) == len(regions) == len([a for a in result.answers if a.region])
    for row in parts:
        files = () if row["level"] == "breast" else (row["file"],)
        region, probability = regions[row["task"], row["class"], (row["level"], row["side"], *files)]
        assert probability == round(row["probability"], 6)
        assert region.position == row["position"]
        siblings = {v["file"] for v in parts if (v["level"], v["side"]) == ("view", row["side"])}
        assert set(region.files) == set(files or siblings)
    assert {row["level"] for row in parts} == {"breast", "view"}
    assert len([a for a in result.answers if a.region is None]) == len(run.scores)


def test_the_pack_is_named_apart_from_its_version_and_hash(ledger: Ledger) -> None:
    algorithm = algorithm_of(ledger)
    assert (algorithm.name, algorithm.version, algorithm.digest) == ("a tiny pack", "1.2", "abc")


def test_a_waveform_has_a_bundle_and_no_report_of_images(tmp_path: Path) -> None:
    result, _ = drawn_study(tmp_path, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.9.1.1")
    paths = {file.path: tmp_path / file.path for file in result.files}
    contents = encode_study(result, paths, {name: FORMATS[name] for name in ("sr", "fhir-r5")}, ALGORITHM, CREATED)
    assert contents["sr"] == WAVEFORM
    assert isinstance(contents["fhir-r5"], bytes)
