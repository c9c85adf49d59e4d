from __future__ import annotations

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.api.captions import captions
from medclip.errors import MedclipError, Reason
from medclip.shards.writing.table import read_shard_table
from medclip.text.checks.caption_check import check_caption
from medclip.text.vocabulary.load import load_task
from tests.kits.shards import write

PNEUMONIA, EFFUSION = (f"label:chest_xray_findings:{c}" for c in ("pneumonia", "effusion"))
ROWS = [
    {
        "note": "a, b",
        "file": "a.png",
        "patient": "P1",
        "modality": "xray",
        PNEUMONIA: "1",
        EFFUSION: "0",
        "caption": "Own words here.",
    },
    {"note": 'He said "no".', "file": "b.png", "patient": "P2", "modality": "xray", "caption": ""},
    {"note": "  spaces ", "file": "c.png", "patient": "P3", "modality": "XRAY", PNEUMONIA: "1", EFFUSION: "1"},
    {"note": "", "file": "d.png", "patient": "P4", "modality": "", "adapter": "generic", PNEUMONIA: "1"},
]


def read(path, delimiter=","):
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f, delimiter=delimiter))


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "table.csv", ROWS)


def test_labelled_rows_get_distinct_true_captions_and_all_else_stays(table, tmp_path):
    report = captions(table, tmp_path / "out.csv", from_="labels", num_captions=10)
    before, after = read(table), read(tmp_path / "out.csv")
    assert list(after[0]) == [*before[0], "captions"]
    assert [{k: v for k, v in row.items() if k != "captions"} for row in after] == before
    assert (report.num_rows, report.num_captioned, report.num_without_labels) == (4, 2, 2)
    assert report.num_captions == 20
    for row, understood in zip(after, read_shard_table(tmp_path / "out.csv").rows, strict=True):
        said = [t for t in row["captions"].split("\n") if t]
        assert len(set(said)) == (10 if row["file"] in ("a.png", "c.png") else 0)
        assert tuple(said) == tuple(t for t in understood.record.texts if t != "Own words here.")
        assert all(check_caption(s, understood.record) == () for s in said)


def test_captions_depend_on_the_row_and_the_seed_and_not_on_its_place(table, tmp_path):
    turned = write(tmp_path / "turned.csv", [{k: r[k] for k in reversed(r)} for r in reversed(ROWS)])
    outs = [tmp_path / f"{i}.csv" for i in range(4)]
    captions(table, outs[0], from_="labels")
    captions(table, outs[1], from_="labels")
    captions(turned, outs[2], from_="labels")
    captions(table, outs[3], from_="labels", seed=1)
    by_file = [{r["file"]: r["captions"] for r in read(o)} for o in outs]
    assert by_file[0] == by_file[1] == by_file[2]
    assert by_file[0]["a.png"] != by_file[3]["a.png"]
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_texts_that_the_column_held_stay_in_front_and_a_second_run_adds_nothing(tmp_path):
    rows = [
        ROWS[0] | {"captions": "First text of ours.\nSecond text of ours."},
        ROWS[1] | {"captions": "Kept as it is."},
    ]
    captions(write(tmp_path / "t.csv", rows), tmp_path / "once.csv", from_="labels", num_captions=3)
    captions(tmp_path / "once.csv", tmp_path / "twice.csv", from_="labels", num_captions=3)
    once = read(tmp_path / "once.csv")
    assert once[0]["captions"].split("\n")[:2] == ["First text of ours.", "Second text of ours."]
    assert len(once[0]["captions"].split("\n")) == 5
    assert once[1]["captions"] == "Kept as it is."
    assert read(tmp_path / "twice.csv") == once


def test_parquet_gets_a_list_and_keeps_its_types(tmp_path):
    columns = {
        "file": ["a.png", "b.png"],
        "patient": pa.array([7, 8], pa.int16()),
        "modality": ["xray", "xray"],
        PNEUMONIA: pa.array([1.0, None], pa.float32()),
        "site": pa.array(["x", "y"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    captions(tmp_path / "t.parquet", tmp_path / "o.parquet", from_="labels", num_captions=4)
    after, before = pq.read_table(tmp_path / "o.parquet"), pq.read_table(tmp_path / "t.parquet")
    assert after.drop_columns(["captions"]).equals(before)
    assert after.schema.field("captions").type == pa.list_(pa.string())
    assert [len(c) for c in after.column("captions").to_pylist()] == [4, 0]
    captions(tmp_path / "o.parquet", tmp_path / "p.parquet", from_="labels", num_captions=4)
    assert pq.read_table(tmp_path / "p.parquet").equals(after)


def test_the_suffix_of_the_output_says_what_is_written_whatever_the_table_is(table, tmp_path):
    captions(table, tmp_path / "o.csv", from_="labels", num_captions=3)
    captions(table, tmp_path / "o.parquet", from_="labels", num_captions=3)
    captions(tmp_path / "o.parquet", tmp_path / "back.csv", from_="labels", num_captions=3)
    assert (tmp_path / "back.csv").read_text() == (tmp_path / "o.csv").read_text()


def test_a_tab_separated_table_stays_one(tmp_path):
    table = write(tmp_path / "t.tsv", ROWS, delimiter="\t")
    captions(table, tmp_path / "o.tsv", from_="labels", num_captions=2)
    assert [r["note"] for r in read(tmp_path / "o.tsv", "\t")] == [r["note"] for r in ROWS]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_paths_still_lead_to_their_files_from_another_folder(tmp_path, form):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    files = ["sub/a.png", "./b.png", str(tmp_path / "in" / "c.png")]
    columns = {"file": files, "modality": ["xray"] * 3, PNEUMONIA: ["1", "1", ""]}
    table, out = tmp_path / "in" / f"t.{form}", tmp_path / "deep" / "out" / f"o.{form}"
    if form == "csv":
        write(table, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    else:
        pq.write_table(pa.table(columns | {"file": pa.array(files).dictionary_encode()}), table)
    report = captions(table, out, from_="labels", num_captions=2)
    rows = read_shard_table(out, patient_from="file").rows
    paths = [r.path.resolve() for r in rows]
    assert paths == [(tmp_path / "in" / f).resolve() for f in files]
    assert rows[2].file == files[2]
    assert report.num_moved == 2
    assert captions(table, table.parent / f"p.{form}", from_="labels", num_captions=2).num_moved == 0
    given = captions(table, table.parent / f"q.{form}", from_="labels", num_captions=2, images=tmp_path / "in" / "sub")
    assert given.num_moved == 2
    assert read_shard_table(given.out, patient_from="file").rows[1].path.resolve() == tmp_path / "in" / "sub" / "b.png"


def test_no_patient_is_asked_for(tmp_path):
    table = write(tmp_path / "t.csv", [{k: v for k, v in ROWS[0].items() if k != "patient"}])
    assert captions(table, tmp_path / "o.csv", from_="labels", num_captions=3).num_captions == 3


def test_a_normal_row_without_a_covid_label_gets_wordings_of_its_own(tmp_path):
    task = load_task("chest_xray_findings")
    labels = {f"label:chest_xray_findings:{c.name}": "0" for c in task.classes if c.name != "covid_19"}
    table = write(tmp_path / "t.csv", [{"file": "a.png", "modality": "xray", **labels}])
    captions(
        table, tmp_path / "o.csv", from_="labels", num_captions=20, writer=lambda facts, n: ["Normal chest X-ray."]
    )
    said = read(tmp_path / "o.csv")[0]["captions"].split("\n")
    assert said[0] == "Normal chest X-ray."
    assert sum(any(p in s for p in task.none_prompts) for s in said) > 5


def test_a_writers_short_texts_are_refused(table, tmp_path):
    report = captions(
        table,
        tmp_path / "o.csv",
        from_="labels",
        num_captions=2,
        writer=lambda facts, n: ["Pneumonia.", "Chest X-ray."],
    )
    assert report.num_by_writer == 0
    assert report.rejected_by_reason["form"] == 4


def test_fewer_wordings_than_asked_are_counted(table, tmp_path):
    report = captions(table, tmp_path / "o.csv", from_="labels", num_captions=500)
    assert report.num_short == 1
    assert 600 < report.num_captions < 1000


def test_outputs_are_not_replaced_unless_asked(table, tmp_path):
    out = tmp_path / "o.csv"
    out.write_text("precious")
    for arguments, reason in (
        ((table, out), Reason.OUTPUT_IN_USE),
        ((table, tmp_path), Reason.WRONG_USE),
        ((table, table), Reason.WRONG_USE),
        ((tmp_path / "none.csv", tmp_path / "x.csv"), Reason.MISSING_FILE),
    ):
        with pytest.raises(MedclipError) as caught:
            captions(*arguments, from_="labels")
        assert caught.value.reason is reason
    assert out.read_text() == "precious"
    captions(table, out, from_="labels", overwrite=True)
    assert len(read(out)) == 4
    with pytest.raises(MedclipError):
        captions(table, tmp_path / "n.csv", from_="labels", num_captions=0)


def test_a_lying_writer_is_replaced_and_counted(table, tmp_path):
    calls = []

    def liar(facts, n):
        calls.append(facts)
        return [
            "Chest X-ray with pneumonia.",
            "Chest X-ray with  pneumonia.",
            "Chest X-ray with pneumonia in the left lower lobe of a 50-year-old man.",
            "No pneumonia.",
            "CT showing pneumonia.",
        ]

    report = captions(table, tmp_path / "o.csv", from_="labels", num_captions=6, writer=liar)
    assert len(calls) == 2, "once for each set of facts"
    assert report.num_by_writer == 2
    assert {"side", "sex", "number", "finding", "modality", "missing"} <= set(report.rejected_by_reason)
    assert report.rejected_by_reason["modality"] == 2
    for row in read_shard_table(tmp_path / "o.csv").rows[:3:2]:
        said = [t for t in row.record.texts if t != "Own words here."]
        assert said[0] == "Chest X-ray with pneumonia."
        assert len(said) == 6
        assert all(check_caption(s, row.record) == () for s in said)


def test_a_writer_that_fails_at_once_is_refused_and_later_is_counted(table, tmp_path):
    def broken(facts, n):
        if facts.absent or not answers:
            raise ConnectionError("no model here")
        return ["Chest film with pneumonia."]

    answers: list[int] = []
    with pytest.raises(MedclipError) as caught:
        captions(table, tmp_path / "o.csv", from_="labels", writer=broken)
    assert caught.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "o.csv").exists()
    answers.append(1)
    turned = write(tmp_path / "turned.csv", list(reversed(ROWS)))
    report = captions(turned, tmp_path / "o.csv", from_="labels", writer=broken)
    assert report.rejected_by_reason["failed"] == 1
    assert report.num_captions == 20


@pytest.mark.parametrize("name", ["c.xlsx", "c", "c.csv.gz"])
def test_a_suffix_that_is_not_written_is_refused_before_the_table_is_read(tmp_path, name):
    with pytest.raises(MedclipError, match=r"ends in \.csv, \.tsv or \.parquet") as refused:
        captions(tmp_path / "nowhere.csv", tmp_path / name, from_="labels")
    assert refused.value.reason is Reason.WRONG_USE
