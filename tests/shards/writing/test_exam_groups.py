"""Examinations and breasts as samples of several views: every row of the table is in one, or in the rejects."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.api.shards import check
from medclip.errors import MedclipError, Reason
from medclip.sample import ViewType
from medclip.settings import Settings
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import Group
from medclip.shards.writing.build import Form, build_shards
from medclip.shards.writing.exam_groups import earlier_exams, joined_labels
from medclip.shards.writing.splits import plan_shards
from medclip.shards.writing.table import read_shard_table
from medclip.text.vocabulary.task import Task, TaskClass
from tests.kits.files import write_dicom, write_image
from tests.kits.mammography_cohort import write_cohort
from tests.kits.shards import KEY, write

ONE_SPLIT = {"train": 1.0}
ALONE = Settings(workers=1)
FOUR = [ViewType(side, position) for position in ("CC", "MLO") for side in ("R", "L")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"), 5)


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _build(rows: list[dict[str, Any]], cohort: Path, out: Path, group: Group | None = "exam", **options: Any) -> Path:
    table = write(out.parent / f"{out.name}.csv", [row | {"split": "train"} for row in rows])
    build_shards(
        table, out, Form(key=KEY, group=group, **options), splits=ONE_SPLIT, images=cohort.parent, settings=ALONE
    )
    return out


def _rejects(out: Path) -> dict[int, tuple[str, str]]:
    rows = pq.read_table(out / "rejects.parquet").to_pylist()
    return {row["row"]: (row["reason"], row["message"]) for row in rows}


def test_an_exam_is_one_sample_of_four_views_in_hanging_order(cohort: Path, tmp_path: Path) -> None:
    rows = _rows(cohort)
    out = _build(rows[::-1], cohort, tmp_path / "exam")
    with ShardReader(out, "train", verify="full") as reader:
        assert len(reader) == 5
        for sample in (reader[i] for i in range(5)):
            assert [view.view for view in sample.views] == FOUR
            assert [view.member for view in sample.views] == ["0.png", "1.png", "2.png", "3.png"]
            assert (sample.record.laterality, sample.record.view) == (None, None)
            assert sample.meta["sha256"].split() == [view.sha256 for view in sample.views]
            assert len(sample.images) == 4
            np.testing.assert_array_equal(sample.image, sample.images[0])
    table = pq.read_table(out / "samples.parquet")
    assert table.column("num_views").to_pylist() == [4] * 5
    assert read_index(out)["options"]["group"] == "exam"
    assert _rejects(out) == {}
    assert check(out).ok


def test_the_views_are_those_of_the_files_and_grey(cohort: Path, tmp_path: Path) -> None:
    rows = _rows(cohort)[:4]
    exams = _build(rows, cohort, tmp_path / "exam")
    single = _build(rows, cohort, tmp_path / "single", None)
    with ShardReader(exams, "train") as reader, ShardReader(single, "train") as images:
        alone = {images[i].meta["sha256"]: images[i].image for i in range(4)}
        (sample,) = (reader[i] for i in range(len(reader)))
        for view, image in zip(sample.views, sample.images, strict=True):
            np.testing.assert_array_equal(alone[view.sha256], image)
        assert {image.mode for image in reader.images(reader.members(0))} == {"L"}
        with pytest.raises(MedclipError, match="holds 4 views") as caught:
            reader.image(reader.members(0))
        assert caught.value.reason is Reason.NOT_SUPPORTED_YET
        assert (images[0].views, images[0].images) == ((), ())
    assert pq.read_table(single / "samples.parquet").column("num_views").to_pylist() == [1] * 4


def test_a_breast_is_one_sample_of_two_views_with_its_side(cohort: Path, tmp_path: Path) -> None:
    rows = _rows(cohort)
    out = _build(rows, cohort, tmp_path / "breast", "breast")
    labels = {(r["patient"], r["laterality"]): r["label:mammography_malignancy"] for r in rows}
    patients = {r["patient"] for r in rows}
    with ShardReader(out, "train") as reader:
        samples = [reader[i] for i in range(len(reader))]
    assert len(samples) == 10
    for sample in samples:
        side = sample.record.laterality
        assert [view.view for view in sample.views] == [ViewType(side or "", "CC"), ViewType(side or "", "MLO")]
    kinds = sorted(str(sample.record.labels["mammography_malignancy"]) for sample in samples)
    assert kinds == sorted(labels[patient, side] for patient in patients for side in "LR")
    assert len({sample.meta["study"] for sample in samples}) == 5


def test_every_row_is_in_a_sample_or_in_the_rejects_with_its_reason(cohort: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = _rows(cohort)[:8]
    rows[1] |= {"view": "CC SPOT"}
    rows[2] |= {"view": "ML"}
    rows[3] |= {"view": ""}
    rows[4] |= {"laterality": ""}
    rows[5] |= {"laterality": "R"}  # its file is named after the left side
    rows[6] |= {"file": "images/gone.png"}
    repeat = rows[0] | {"file": "images_copy.png"}
    (cohort.parent / "images_copy.png").write_bytes((cohort.parent / str(rows[7]["file"])).read_bytes())
    out = _build([*rows, repeat], cohort, tmp_path / "exam")
    rejects = _rejects(out)
    assert {number: reason for number, (reason, _) in rejects.items()} == {
        2: "other_view",
        3: "other_view",
        4: "view_unknown",
        5: "view_unknown",
        6: "view_unknown",
        7: "missing_file",
        9: "other_view",
    }
    assert "spot compressed" in rejects[2][1]
    assert "an ML view is no MLO" in rejects[3][1]
    assert "its view as CC or MLO" in rejects[4][1]
    assert "names its side" in rejects[5][1]
    assert "different sides" in rejects[6][1]
    assert "taken by another image" in rejects[9][1]
    with ShardReader(out, "train") as reader:
        views = sorted(tuple(v.view.slot or "" for v in reader[i].views) for i in range(len(reader)))
    assert views == [("L-MLO",), ("R-CC",)]
    assert sum(map(len, views)) + len(rejects) == 9
    assert check(out).ok


@pytest.mark.parametrize("last", [(1, 10), (10, 1)])
def test_of_two_images_of_one_view_the_one_that_scan_takes_is_taken_wherever_its_row_stands(
    cohort: Path, tmp_path: Path, last: tuple[int, int]
) -> None:
    rows = _rows(cohort)[:11]
    for number, row in enumerate(rows):
        (cohort.parent / f"n{number:02}.png").write_bytes((cohort.parent / row["file"]).read_bytes())
    own = [rows[0] | {"file": f"n{n:02}.png", "laterality": "L", "view": "ML"} for n in range(2, 10)]
    own += [rows[0] | {"file": f"n{n:02}.png", "laterality": "L", "view": "CC"} for n in last]  # rows 9 and 10
    out = _build(own, cohort, tmp_path / "out")
    (sample,) = pq.read_table(out / "samples.parquet").to_pylist()
    assert sample["sha256"] == hashlib.sha256((cohort.parent / "n01.png").read_bytes()).hexdigest()
    assert _rejects(out)[9 + last.index(10)][0] == "other_view"


def test_headers_name_views_intent_and_implants_where_the_table_says_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number, (side, position, intent, word) in enumerate(
        [("R", "CC", "PRESENTATION", "A"), ("R", "CC", "PROCESSING", "A"), ("L", "MLO", "PROCESSING", "LOW_ENERGY")]
    ):
        write_dicom(
            tmp_path / f"{number}.dcm",
            rng.integers(0, 4000, (64, 48)).astype(np.uint16),
            Modality="MG",
            ImageLaterality=side,
            ViewPosition=position,
            PresentationIntentType=f"FOR {intent}",
            ImageType=["ORIGINAL", "PRIMARY", "", word],
            BreastImplantPresent="YES",
        )
        rows.append(
            {"file": f"{number}.dcm", "patient": "p", "study": "1", "modality": "mammography", "split": "train"}
        )
    table = write(tmp_path / "table.csv", rows)
    build_shards(table, tmp_path / "out", Form(key=KEY, group="exam"), splits=ONE_SPLIT, settings=ALONE)
    rejects = _rejects(tmp_path / "out")
    assert {number: reason for number, (reason, _) in rejects.items()} == {2: "companion"}
    with ShardReader(tmp_path / "out", "train") as reader:
        (sample,) = (reader[i] for i in range(len(reader)))
    assert [view.view for view in sample.views] == [ViewType("R", "CC"), ViewType("L", "MLO", "low_energy")]
    assert [view.implant for view in sample.views] == [True, True]


def test_a_mammogram_keeps_its_pixels_up_to_the_side_that_is_asked_for(tmp_path: Path) -> None:
    down, across = np.mgrid[:2600, :1800].astype(np.float32)
    breast = ((down - 1300) / 1200) ** 2 + (across / 1500) ** 2 < 1
    write_image(tmp_path / "a.png", np.where(breast, 80 + (down + across) % 97, 0).astype(np.uint8))
    row = {"file": "a.png", "patient": "p", "study": "1", "modality": "mammography", "laterality": "L", "view": "CC"}
    table = write(tmp_path / "table.csv", [row | {"split": "train"}])
    for max_side, expected in ((4000, 2472), (2048, 2048)):
        out = tmp_path / str(max_side)
        build_shards(table, out, Form(key=KEY, group="breast", max_side=max_side), splits=ONE_SPLIT, settings=ALONE)
        with ShardReader(out, "train") as reader:
            assert abs(max(reader[0].images[0].shape) - expected) <= 40


def test_texts_and_reports_stay_with_their_views(cohort: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = _rows(cohort)[:4]
    rows[0] |= {"caption": "An oval mass in the right breast.", "report": "Right: oval mass."}
    rows[1] |= {"report": "Left: no finding."}
    out = _build(rows, cohort, tmp_path / "exam")
    with ShardReader(out, "train") as reader:
        sample = reader[0]
        raw = json.loads(reader.members(0)["json"])["views"]
    by_slot = {view.view.slot: view for view in sample.views}
    first = ViewType(rows[0]["laterality"], rows[0]["view"]).slot
    second = ViewType(rows[1]["laterality"], rows[1]["view"]).slot
    assert by_slot[first].texts == ("An oval mass in the right breast.",)
    assert (by_slot[first].report, by_slot[second].report) == ("Right: oval mass.", "Left: no finding.")
    assert sample.record.texts == ("An oval mass in the right breast.",)
    assert set((sample.record.report or "").split("\n\n")) == {"Right: oval mass.", "Left: no finding."}
    assert all("report" not in value for value in raw if value["side"] + value["position"] not in ("RCC", "LCC"))
    same = _build([row | {"report": "Both breasts: no finding."} for row in rows], cohort, tmp_path / "same")
    with ShardReader(same, "train") as reader:
        assert reader[0].record.report == "Both breasts: no finding."
        assert {view.report for view in reader[0].views} == {None}


def test_the_worst_image_speaks_for_the_breast() -> None:
    classes = tuple(TaskClass(name, name, (name,)) for name in ("mass", "calcification", "both", "none"))
    kinds = Task("kinds", "Kinds", "multiclass", (), ("{}",), classes)

    def kind(*names: str) -> Any:
        return joined_labels([{"kinds": name} for name in names], {"kinds": kinds}).get("kinds")

    assert (kind("mass", "mass"), kind("mass", "none"), kind("mass", "calcification")) == ("mass", "mass", "both")
    other = Task("kinds", "Kinds", "multiclass", (), ("{}",), classes[:2])
    assert joined_labels([{"kinds": "mass"}, {"kinds": "calcification"}], {"kinds": other}) == {}
    assert joined_labels([{}, {"f": {"a": 0, "b": 1}}, {"f": {"a": 1}}]) == {"f": {"a": 1, "b": 1}}
    assert joined_labels(
        [{"breast_composition": "scattered_fibroglandular"}, {"breast_composition": "extremely_dense"}]
    ) == {"breast_composition": "extremely_dense"}
    malignancy = "mammography_malignancy"
    assert joined_labels([{malignancy: name} for name in ("benign", "malignant", "normal")]) == {
        malignancy: "malignant"
    }
    answers = [{"mammography_malignancy": kind} for kind in ("normal", "malignant", "benign")]
    assert joined_labels(answers) == {"mammography_malignancy": "malignant"}
    assert joined_labels([{"breast_birads": "birads_4"}, {"breast_birads": "birads_2"}]) == {
        "breast_birads": "birads_4"
    }
    assert joined_labels([{"breast_birads": "birads_0"}, {"breast_birads": "birads_2"}]) == {}
    risk = "breast_cancer_risk"
    months = [{risk: {"followup_months": 60}}, {risk: {"event_months": 14, "followup_months": 60}}]
    assert joined_labels(months) == {risk: {"followup_months": 60, "event_months": 14}}
    months = [{risk: {"event_months": event, "followup_months": 60}} for event in (30, 14, 50)]
    assert joined_labels(months) == {risk: {"followup_months": 60, "event_months": 14}}


def test_earlier_exams_are_known_by_the_days_between_and_never_by_their_dates(cohort: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = _rows(cohort)[:12]
    days = ["2020-03-01", "20220301", "2021-03"]
    for number, row in enumerate(rows):
        row |= {"patient": "one", "study": "", "exam_date": days[number // 4]}
    understood = read_shard_table(write(tmp_path / "t.csv", rows), folder=cohort.parent).rows
    assert understood[8].exam_date == date(2021, 3, 1)
    names = [row.exam for row in understood]
    assert earlier_exams(understood)[5] == ((names[8], 365), (names[0], 730))
    out = _build(rows, cohort, tmp_path / "exam")
    with ShardReader(out, "train") as reader:
        metas = [reader[i].meta for i in range(len(reader))]
    assert sorted([e["days"] for e in meta.get("earlier", ())] for meta in metas) == [[], [365], [365, 730]]
    studies = {meta["study"] for meta in metas}
    assert all(e["study"] in studies for meta in metas for e in meta.get("earlier", ()))
    assert "2021" not in json.dumps(metas)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"study": ""}, "names neither `study` nor `exam_date`"),
        ({"modality": "xray"}, "is no mammogram"),
        ({"exam_date": "yesterday"}, "`exam_date` is"),
        ({"view_kind": "sideways"}, "`view_kind` is 'sideways'"),
    ],
)
def test_what_no_examination_can_be_made_of_is_refused(
    change: dict[str, str], sentence: str, cohort: Path, tmp_path: Path
) -> None:
    rows = _rows(cohort)[:4]
    with pytest.raises(MedclipError, match=sentence) as caught:
        _build([rows[0] | change, *rows[1:]], cohort, tmp_path / "out")
    assert caught.value.reason is Reason.TABLE_INVALID
    assert not (tmp_path / "out").exists()


def test_another_group_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="group is one of exam and breast, not 'woman'"):
        medclip.shards.build(cohort, tmp_path / "out", group="woman")
    with pytest.raises(MedclipError, match="by exam or by breast, and volumes and ECGs not at all"):
        medclip.shards.build(cohort, tmp_path / "out", group="exam", volumes=True)


def test_the_plan_says_how_many_views_samples_will_have(cohort: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = _rows(cohort)
    rows[0] |= {"view": "ML"}
    table = write(tmp_path / "t.csv", rows)
    plan = plan_shards(table, images=cohort.parent, group="exam")
    assert (plan.samples_by_views, plan.rows_set_aside) == ({"3": 1, "4": 4}, {"other_view": 1})
    assert plan_shards(table, images=cohort.parent, group="breast").samples_by_views == {"1": 1, "2": 9}
    assert plan_shards(table, images=cohort.parent).samples_by_views == {}


def test_a_copy_of_one_view_in_another_split_is_counted(cohort: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = _rows(cohort)[:8]
    (cohort.parent / "again.png").write_bytes((cohort.parent / str(rows[0]["file"])).read_bytes())
    rows[4] |= {"file": "again.png"}
    table = write(tmp_path / "t.csv", [row | {"split": "test" if n > 3 else "train"} for n, row in enumerate(rows)])
    report = build_shards(table, tmp_path / "out", Form(key=KEY, group="exam"), images=cohort.parent, settings=ALONE)
    assert report.num_duplicates_across_splits == 2
    assert report.counts_by_views == {"4": 2}
    problems = check(tmp_path / "out").problems  # type: ignore[union-attr]
    assert "2 samples lie in another split too" in problems[0]


def test_studies_of_one_name_are_examinations_of_their_own_patients(cohort: Path, tmp_path: Path) -> None:
    out = _build([row | {"study": "1", "exam_date": ""} for row in _rows(cohort)], cohort, tmp_path / "exam")
    with ShardReader(out, "train") as reader:
        samples = [reader[i] for i in range(len(reader))]
    assert [len(sample.views) for sample in samples] == [4] * 5
    assert len({sample.meta["study"] for sample in samples}) == len({sample.meta["patient"] for sample in samples}) == 5
    assert _rejects(out) == {}
