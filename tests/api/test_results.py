"""Every verb's result shows itself: a short repr, a notebook page without a script, a data frame."""

from __future__ import annotations

import json
import re
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medclip
from examples.make_phantoms import slide
from medclip.cli.main import main
from medclip.evaluation.few_shot.comparison import Cell
from medclip.evaluation.zero_shot.suite_result import SetResult
from medclip.inspecting.doctor import Check, State
from medclip.pairs.sources.captioned_table import CaptionsReport
from medclip.result import Result
from medclip.shards.reading.index_tars import IndexReport
from medclip.statistics.estimate import Figure
from tests.kits.adapt_tables import make_table, tiny
from tests.kits.files import ramp, write_image

__all__ = ["tiny"]

HOSTILE = "<script>alert('x')</script>"
VERBS = (
    "adapt",
    "audit",
    "compare",
    "doctor",
    "evaluate",
    "explain",
    "finetune",
    "open_study",
    "pretrain",
    "scan",
    "score",
    "view",
)


def audit() -> medclip.AuditResult:
    row = {"model": HOSTILE, "label": "flu", "attribute": "sex", "group": "F", "metric": "auroc", "value": 0.8, "n": 40}
    return medclip.AuditResult(
        metrics=tuple(row | {"group": f"g{i}"} for i in range(500)),
        gaps=({"label": "flu", "gap": "auroc", "flag": "underpowered"},),
        leakage=({"check": "patients", "found": 3, "severity": "red"},),
        model_names=(HOSTILE,),
        labels=tuple(f"finding {i}" for i in range(40)),
        attributes=("sex", "age"),
    )


def evaluate() -> medclip.SuiteResult:
    part = SetResult(
        id=HOSTILE,
        group="x",
        modality="xray",
        metric="accuracy",
        classes=("a", "b"),
        prompts_per_class=(1, 1),
        images_per_class=(4, 4),
        num_images=9,
        num_read=8,
        num_left_out=0,
        problems={"corrupt": 1},
        num_patients=8,
        num_in_training=None,
        figures={"accuracy": Figure(0.75, 0.5, 0.9)},
        unseen={},
        num_unseen=0,
        notes=(),
    )
    return medclip.SuiteResult(
        suite="s",
        suite_digest="",
        model="tiny",
        model_version="1",
        model_digest="",
        sets=(part,),
        missing=(),
        unusable=(),
        not_asked=(),
        groups=(),
        average=0.75,
        num_sets=2,
        notes=(),
    )


def compare() -> medclip.Comparison:
    cell = Cell("tip", 4, "balanced_accuracy", 0.8, 0.7, 0.9, None, None)
    return medclip.Comparison(
        table="t",
        base="tiny",
        base_version="1",
        base_digest="",
        kind="multiclass",
        classes=("a", HOSTILE),
        titles={"tip": "Tip-Adapter"},
        shots=(4,),
        averaged=(4,),
        seeds=(0,),
        inits=(0,),
        references=(),
        num_replicates=0,
        primary="balanced_accuracy",
        measured=(),
        counts={},
        num_in_training=None,
        problems={},
        notes=(),
        drawings=(),
        cells=(cell,),
        differences=(),
        costs=(),
        deviations={},
        failures=(),
        confusions=(),
        novel=(),
        novel_classes=(),
        version="",
    )


def pretrain() -> medclip.PretrainResult:
    row = {"task": HOSTILE, "metric": HOSTILE, "value": 0.7, "low": 0.6, "high": 0.8, "chance": 0.5}
    return medclip.PretrainResult(Path(HOSTILE), 5, 10, None, {"val_loss": 1.25}, (row,) * 20, Path(HOSTILE))


def doctor() -> medclip.Diagnosis:
    return medclip.Diagnosis(tuple(Check(f"check {i}", State.WARN, HOSTILE, "fix it") for i in range(30)))


@pytest.mark.parametrize("make", [audit, evaluate, compare, pretrain, doctor])
def test_a_result_shows_itself(make: Any):
    shows_itself(make())


def test_what_reads_files_shows_itself_too(tmp_path: Path):
    for number in range(12):
        write_image(tmp_path / f"Jane_Doe_{number}.png", ramp())
    scanned = medclip.scan(tmp_path)
    shows_itself(scanned)
    assert "Jane" not in repr(scanned) + scanned._repr_html_()  # a notebook is passed on
    assert scanned.to_pandas()["file"].iloc[0] == "Jane_Doe_0.png"
    shows_itself(medclip.open_study(tmp_path, "xray"))
    shows_itself(medclip.view(tmp_path / "Jane_Doe_0.png", tmp_path / "view.png", modality="xray"))


def test_a_scoring_run_shows_itself_and_is_read_back_from_its_folder(studies: Path, pack: Path, tmp_path: Path):
    run = medclip.score(studies, tmp_path / "out", model=pack, workers=1)
    shows_itself(run)
    again = medclip.runs.read(tmp_path / "out")
    assert again.counts == run.counts
    assert again.scores.equals(run.scores)
    assert again.already_finished
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(medclip.MedclipError, match="no finished scoring run here: run"):
        medclip.runs.read(tmp_path / "out")


def test_an_adaptation_shows_itself(tiny: Path, tmp_path: Path):
    table = make_table(tmp_path, patients=18)
    run = medclip.adapt(table, "finding", model=tiny, method="tip", shots=2, workers=1)
    shows_itself(run)
    assert "balanced_accuracy" in list(run.to_pandas()["metric"])
    (figures,) = [line for line in repr(run).splitlines() if "figures" in line]
    assert figures.endswith(f"; {len(run.to_pandas()) - 1} more rows: to_pandas()")


def test_what_the_namespaces_return_shows_itself(pack: Path, tmp_path: Path):
    packs = medclip.models.list()
    assert [info.name for info in packs] == ["medclip-mini"]
    card = medclip.models.show("medclip-mini")
    for result in (packs, packs[0], medclip.models.verify(pack), card):
        shows_itself(result)
    assert {name for name in card.to_pandas()["task"] if not name.startswith("retrieval")} == set(card.tasks)
    assert str(card) == repr(card)
    shows_itself(medclip.models.export(pack, tmp_path / "exported"))
    shown = r"Model\(tiny 1, \w+, \d+ px, vectors of \d+, images and words, cpu\)"
    assert re.fullmatch(shown, repr(medclip.models.load(pack)))


def test_what_is_done_to_shards_shows_itself(tmp_path: Path):
    for number in range(4):
        write_image(tmp_path / f"{number}.png", ramp() + number)
    rows = "".join(f"{number}.png,p{number},xray,normal{number}\n" for number in range(4))
    table = tmp_path / "t.csv"
    table.write_text(f"file,patient,modality,note\n{rows}gone.png,p9,xray,\n")
    report = medclip.shards.build(table, tmp_path / "shards", settings=medclip.Settings(workers=1))
    plan = medclip.shards.build(table, tmp_path / "other", dry_run=True).planned
    assert plan is not None
    checked = medclip.shards.check(tmp_path / "shards")
    reader = medclip.shards.open(tmp_path / "shards", next(iter(report.counts_by_split)))
    captions = CaptionsReport(tmp_path / "c.csv", 5, 4, 1, 40, 0)
    index = IndexReport(tmp_path, 1, 4, 4096, {"xray": 4}, {}, 0, 0, 0, "key")
    for result in (report, checked, plan, reader[0], captions, index):
        shows_itself(result)
    assert re.fullmatch(r"ShardReader\(\w+, \d samples? in 1 tar\)", repr(reader))
    counts = report.to_pandas().set_index(["what", "value"])["count"]
    assert counts["samples", ""] == 4
    assert counts["counts by reason", "missing_file"] == 1


def test_shards_check_takes_a_table_as_its_command_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table = tmp_path / "t.csv"
    table.write_text("file,patient,modality\ngone.png,p1,xray\n")
    checked = medclip.shards.check(table, seed=3)
    assert checked == medclip.shards.build(table, tmp_path / "s", seed=3, dry_run=True).planned
    assert not checked.ok
    assert main(["shards", "check", str(table), "--seed", "3", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["num_missing_files"] == checked.num_missing_files
    write_image(tmp_path / "gone.png", ramp())
    assert medclip.shards.check(pd.read_csv(table), images=tmp_path).ok


def test_what_is_read_of_a_slide_shows_itself(tmp_path: Path):
    with medclip.slides.open(slide(tmp_path / "slide.tiff")) as reader:
        tissue = medclip.slides.find_tissue(reader)
        grid = medclip.slides.make_grid(reader, tissue)
        for result in (reader, tissue, grid):
            shows_itself(result)
        assert str(tmp_path) not in repr(reader) + reader._repr_html_()
        assert len(grid.to_pandas()) == len(grid)


def shows_itself(result: Any) -> None:
    lines = repr(result).splitlines()
    assert 1 <= len(lines) < 10, lines
    assert max(map(len, lines)) <= 140, lines
    assert lines[0].startswith(type(result).__name__)
    page = result._repr_html_()
    assert "<script" not in page
    assert "<table" in page
    assert "src=" not in page.replace('src="data:', "")
    frame = result.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_returns_a_frozen_result(verb: str):
    for name in getattr(medclip, verb).__annotations__["return"].split(" | "):
        kind = getattr(medclip, name)
        assert issubclass(kind, Result)
        assert is_dataclass(kind)
        assert kind.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]


def test_the_first_rows_are_in_the_page_and_all_in_the_frame():
    result = audit()
    assert result._repr_html_().count("<tr>") == len(result._facts()) + 1 + 10
    assert len(result.to_pandas()) == 500
    assert "to_pandas()" in result._repr_html_()


def test_a_comparison_names_its_measure_in_the_middle_of_a_sentence() -> None:
    assert "best by balanced accuracy" in repr(compare())
    assert "best by AUROC" in repr(replace(compare(), primary="macro_auroc"))
