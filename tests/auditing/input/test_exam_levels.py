"""Scores of mammography examinations as exams, breasts or images, and how far the breasts lie apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.api.audit import audit
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import read_cohort
from medclip.auditing.input.score_table import at_level
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import Table
from medclip.files.tables.write import write_rows
from medclip.runs.rows import ExamRow, FileRow, ScoreRow

PLACES = [("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")]


def exam_row(study: str, level: str, probability: float, side: str | None = None, row: int | None = None) -> ExamRow:
    return ExamRow(
        study,
        f"p{study}",
        level,
        side,
        None,
        None,
        row,
        None,
        "breast_cancer",
        "cancer",
        "multilabel",
        probability,
        0.0,
        None,
        None,
        "attention",
        1,
        "[]",
        None,
        "tiny",
        "1",
    )


def write_run(folder: Path, num: int = 40) -> Path:
    """Write the tables of a run: exam n has its cancer, if any, in the right breast, whose score is the higher."""
    files, studies, exams, labels = [], [], [], []
    for n in range(num):
        study, sick = f"s{n:03}", n % 4 == 0
        right, left = (0.5 + n / 100 if sick else 0.3), 0.25
        exams += [exam_row(study, "exam", right), exam_row(study, "breast", right, "R")]
        exams += [exam_row(study, "breast", left, "L")] if n != 1 else []
        studies.append(
            ScoreRow(
                study,
                f"p{study}",
                "mammography",
                "breast_cancer",
                "cancer",
                "multilabel",
                right,
                0.0,
                4,
                "tiny",
                "1",
                "p",
            )
        )
        for place, (side, view) in enumerate(PLACES):
            number = 4 * n + place + 1
            path = f"{study}/{side}_{view}.png"
            files.append(
                FileRow(
                    number,
                    path,
                    "0" * 64,
                    9,
                    "png",
                    "scored",
                    None,
                    None,
                    study,
                    "mammography",
                    "table",
                    laterality=side,
                    view=view,
                )
            )
            exams.append(exam_row(study, "view", right if side == "R" else left, side, number))
            labels.append((path, f"W{n}", int(sick and side == "R" and view == "CC"), "FM"[n % 2]))
    write_rows(folder / "files.parquet", FileRow, files)
    write_rows(folder / "scores.parquet", ScoreRow, studies)
    write_rows(folder / "exam_scores.parquet", ExamRow, exams)
    columns = dict(zip(("file", "patient", "cancer", "site"), zip(*labels, strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), folder / "labels.parquet")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("exams"))


def read(run: Path, level: str | None, **options):
    return read_cohort(run, run / "labels.parquet", options=ReadOptions(level=level), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "rows", "positives"), [("exam", 40, 10), ("breast", 79, 10), ("view", 160, 10)])
def test_a_row_of_the_audit_is_an_exam_a_breast_or_an_image(run: Path, level: str, rows: int, positives: int) -> None:
    cohort = read(run, level)
    (label,) = cohort.labels
    assert len(label.score_N) == rows
    assert label.truth_N.sum() == positives
    assert len(set(cohort.patients_N.tolist())) == 40


def test_breasts_are_grouped_by_side(run: Path) -> None:
    cohort = read(run, "breast", by=["side"])
    assert cohort.attributes[0].groups == ("L", "R")
    (label,) = cohort.labels
    right = cohort.attributes[0].codes_N == 1
    assert (label.truth_N[right].sum(), label.truth_N[~right].sum()) == (10, 0)


def test_exams_are_grouped_by_how_far_the_scores_of_the_breasts_lie_apart(run: Path) -> None:
    for name in ("left_right_difference", "left_right_difference:cancer"):
        (attribute,) = read(run, "exam", by=[name]).attributes
        sizes = {group: int((attribute.codes_N == n).sum()) for n, group in enumerate(attribute.groups)}
        assert sizes == {"<0.1": 29, "0.1-<0.3": 2, "≥0.3": 8, "not stated": 1}, "exam 1 has one breast"
    edges = ReadOptions(level="exam", bins={"left_right_difference": [0.2]})
    (attribute,) = read_cohort(run, run / "labels.parquet", by=["left_right_difference"], options=edges).attributes
    assert attribute.groups == ("<0.2", "≥0.2", "not stated")


def test_the_difference_without_a_class_is_the_largest_over_all_classes() -> None:
    rows = [exam_row("s", "exam", 0.5)]
    for name, right, left in (("normal", 0.9, 0.4), ("benign", 0.05, 0.1)):
        rows += [
            replace(exam_row("s", "breast", p, side), class_=name) for side, p in zip("RL", (right, left), strict=True)
        ]
    named = [{name.rstrip("_"): value for name, value in vars(row).items()} for row in rows]
    files = Table(pa.table({"study": ["s"]}), "files")
    _, joined = at_level(Table(pa.Table.from_pylist(named), "scores"), files, "exam")
    assert joined is not None
    differences = {name: joined.arrow.column(name)[0].as_py() for name in joined.names if "difference" in name}
    assert differences == {
        "left_right_difference": "0.5000",
        "left_right_difference:normal": "0.5000",
        "left_right_difference:benign": "0.0500",
    }


def test_exams_are_what_a_table_of_levels_is_read_as_and_an_audit_says_what_was_asked(
    run: Path, tmp_path: Path
) -> None:
    alone = read_cohort(run / "exam_scores.parquet", run / "labels.parquet")
    assert len(alone.labels[0].score_N) == 40
    keys = {"by": ["side"], "num_resamples": 100, "num_permutations": 100, "patient": "patient"}
    audit(run, run / "labels.parquet", out=tmp_path / "audit", level="breast", **keys)
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert written["provenance"]["recipe"]["level"] == "breast"


@pytest.mark.parametrize(
    ("task", "classes", "of_breasts", "of_exam"),
    [
        ("mammography_malignancy", ["normal", "benign", "malignant"], ["normal", "malignant"], ["malignant"]),
        ("mammography_malignancy", ["normal", "benign", "malignant"], ["benign", "malignant"], ["malignant"]),
        ("mammography_subtype", ["none", "mass", "both"], ["none", "mass"], ["mass"]),
        ("mammography_subtype", ["mass", "calcification", "both"], ["mass", "calcification"], ["both"]),
        ("breast_birads", ["birads_0", "birads_1", "birads_2"], ["birads_0", "birads_2"], []),
        ("breast_birads", ["birads_1", "birads_2", "birads_5"], ["birads_2", "birads_5"], ["birads_5"]),
    ],
)
def test_an_exam_whose_breasts_differ_is_of_the_class_that_shards_give_it(
    tmp_path: Path, task: str, classes: list[str], of_breasts: list[str], of_exam: list[str]
) -> None:
    files, exams, labels = [], [], []
    for n, sides in enumerate([of_breasts, *([name, name] for name in classes)]):
        for side, name in zip("RL", sides, strict=True):
            path = f"{n}{side}.png"
            place = 2 * n + (side == "L") + 1
            files.append(
                FileRow(
                    place,
                    path,
                    "0" * 64,
                    9,
                    "png",
                    "scored",
                    None,
                    None,
                    f"s{n}",
                    "mammography",
                    "table",
                    laterality=side,
                )
            )
            labels.append((path, name, f"W{n}"))
        exams += [
            replace(exam_row(f"s{n}", "exam", 0.1 + 0.2 * (c == n)), task=task, class_=name, kind="multiclass")
            for c, name in enumerate(classes)
        ]
    write_rows(tmp_path / "files.parquet", FileRow, files)
    write_rows(tmp_path / "exam_scores.parquet", ExamRow, exams)
    columns = dict(zip(("file", task, "patient"), map(list, zip(*labels, strict=True)), strict=True))
    cohort = read_cohort(tmp_path, pa.table(columns), options=ReadOptions(level="exam"))
    assert [label.name for label in cohort.labels if label.truth_N[0] == 1] == of_exam


@pytest.mark.parametrize("asked", [None, ["mammography_malignancy"]])
def test_tables_for_shards_hold_the_truths_as_they_are(tmp_path: Path, asked: list[str] | None) -> None:
    classes, files, exams, truths = ("normal", "benign", "malignant"), [], [], []
    for n, name in enumerate(classes):
        files.append(
            FileRow(n + 1, f"{n}.png", "0" * 64, 9, "png", "scored", None, None, f"s{n}", "mammography", "table")
        )
        truths.append(
            {
                "file": f"{n}.png",
                "patient": f"W{n}",
                "label:mammography_malignancy": name,
                "label:breast_cancer:cancer": int(n == 2),
            }
        )
        exams += [
            replace(
                exam_row(f"s{n}", "exam", 0.2 + 0.2 * (one == name)),
                task="mammography_malignancy",
                class_=one,
                kind="multiclass",
            )
            for one in classes
        ]
        exams.append(exam_row(f"s{n}", "exam", 0.1 * n))
    write_rows(tmp_path / "files.parquet", FileRow, files)
    write_rows(tmp_path / "exam_scores.parquet", ExamRow, exams)
    cohort = read_cohort(tmp_path, pa.Table.from_pylist(truths), label=asked, options=ReadOptions(level="exam"))
    of_labels = {label.name: label.truth_N.tolist() for label in cohort.labels}
    own = {} if asked else {"breast_cancer:cancer": [0, 0, 1]}
    assert of_labels == {name: [int(name == one) for one in classes] for name in classes} | own


def test_scores_without_levels_and_levels_that_do_not_exist_are_refused(run: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.parquet", ScoreRow, [])
    with pytest.raises(MedclipError, match="exam_scores") as missing:
        read_cohort(tmp_path, run / "labels.parquet", options=ReadOptions(level="exam"))
    assert missing.value.reason is Reason.MISSING_FILE
    with pytest.raises(MedclipError, match="level"):
        read_cohort(run / "scores.parquet", run / "labels.parquet", options=ReadOptions(level="exam"))
