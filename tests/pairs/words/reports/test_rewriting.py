from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import TextForm
from medclip.models.packs.pack import load_model
from medclip.pairs.pile import read_pile
from medclip.pairs.selection.pack_vectors import encode_pile
from medclip.pairs.words.asking_agents import EndpointAgent
from medclip.pairs.words.reports.report_agents import ReportAgent, fault_of_answer
from medclip.pairs.words.reports.rewrite_steps import CaptionSteps, NegativeSteps, RewriteSteps
from medclip.pairs.words.reports.rewriting import Rewriting, rewrite
from medclip.pairs.words.reports.rewriting_rows import read_text_rows
from medclip.progress import Silent
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY, write, write_films
from tests.pairs.words.test_endpoint import message, serve  # noqa: F401 (a fixture)

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
REPORTS = ["Stable small effusion. Clear apices.", "No effusion. Clear apices.", "", "Discussed with Dr. Who."]


@pytest.fixture
def table(tmp_path):
    rows = [{"key": f"r{n}", "patient": f"p{n}", "modality": "xray", "report": r} for n, r in enumerate(REPORTS)]
    return write(tmp_path / "reports.csv", rows)


def rows_of(folder):
    return pq.read_table(folder / "rewritten.parquet").to_pylist()


def test_every_row_of_a_table_is_one_row_with_its_reason(table, tmp_path):
    result = rewrite(Rewriting(table, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert [r["reason"] for r in rows] == ["", "", "no_text", "nothing_left"]
    assert rows[0]["positive"] == "Small effusion. Clear apices."
    assert [n["text"] for n in rows[0]["negatives"]] == ["No effusion. Clear apices."]
    assert (rows[0]["tags"], rows[1]["denied_tags"]) == (["effusion"], ["effusion"])
    assert sum(c["weight"] for c in rows[0]["candidates"]) == pytest.approx(1)
    assert result.num_rows == 4
    assert result.check is None


def test_a_table_has_the_columns_that_a_pile_reads_of_it_and_a_column_that_is_named_is_one_thing(tmp_path):
    place = write(tmp_path / "t.csv", [{"FILE": "a.png", "Patient ID": "p1", "text": "Left lung."}])
    (row,) = read_text_rows(place).rows
    (of_pile,) = read_pile(place).table.select(["patient", "text"]).to_pylist()
    assert {"patient": row.patient, "text": "\n".join(row.texts)} == of_pile == {"patient": "p1", "text": "Left lung."}
    (named,) = read_text_rows(place, columns={"report": "text", "patient": "Patient ID"}).rows
    assert (named.report, named.texts, named.patient) == ("Left lung.", (), "p1")


def test_a_second_run_ends_in_the_same_bytes_and_other_steps_are_refused(table, tmp_path):
    rewrite(Rewriting(table, tmp_path / "out"))
    before = (tmp_path / "out" / "rewritten.parquet").read_bytes()
    (tmp_path / "out" / "rewritten.parquet").unlink()
    rewrite(Rewriting(table, tmp_path / "out"))
    assert (tmp_path / "out" / "rewritten.parquet").read_bytes() == before
    with pytest.raises(MedclipError) as caught:
        rewrite(Rewriting(table, tmp_path / "out", RewriteSteps(seed=1)))
    assert caught.value.reason is Reason.OUTPUT_IN_USE


def test_shards_are_written_again_with_texts_in_their_roles(tmp_path):
    build_shards(write_films(tmp_path), tmp_path / "shards", Form(key=KEY), settings=Settings(workers=1))
    result = rewrite(Rewriting(tmp_path / "shards", tmp_path / "out"))
    assert check_shards(result.shards).problems == ()
    with ShardReader(tmp_path / "shards", "train") as old, ShardReader(result.shards, "train") as new:
        assert [old.key(i) for i in range(len(old))] == [new.key(i) for i in range(len(new))]
        assert (old[0].image == new[0].image).all()
        records = [new.record(i)[0] for i in range(len(new))]
    affirmed = [r for r in records if r.labels.get("chest_xray_findings") == {"pneumonia": 1}]
    assert affirmed
    assert all(r.tags == ("pneumonia",) and r.long_captions and r.texts for r in affirmed)
    assert any(r.negatives for r in records)
    assert {r.absent_tags for r in records} > {()}, "what a caption denies is stated as absent"


def shards_of(folder, reports):
    rng = np.random.default_rng(0)
    rows = []
    for n, report in enumerate(reports):
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(folder / f"{n}.png")
        rows.append({"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", "report": report})
    table = write(folder / "films.csv", rows)
    form = Form(key=KEY)
    return build_shards(table, folder / "shards", form, splits={"train": 1.0}, settings=Settings(workers=1)).folder


def test_nothing_of_raw_words_is_left_in_the_shards(tmp_path):
    """A report of which nothing is left is quoted no more than a cleaned one: captions say what labels do."""
    shards = shards_of(tmp_path, ["Stable small effusion. Discussed with Dr. Who.", "Discussed with Dr. Who."])
    result = rewrite(Rewriting(shards, tmp_path / "out"))
    with ShardReader(result.shards, "train") as new:
        records = {record.report: record for record, _ in (new.record(i) for i in range(2))}
        captions = [new.members(i)["txt"] for i in range(2)]
    assert records.keys() == {"Small effusion.", None}
    assert records["Small effusion."].texts == ("Small effusion.",)
    assert records[None].texts == ()
    assert all(caption.strip() for caption in captions)
    assert any(b"Dr. Who" in tar.read_bytes() for tar in shards.glob("*.tar"))
    assert not any(b"Dr. Who" in tar.read_bytes() for tar in result.shards.glob("*.tar"))


def test_a_report_that_needs_no_cleaning_is_a_clean_caption(tmp_path):
    shards = shards_of(tmp_path, ["Small left effusion.", "Small left effusion, unchanged since the study of 2012."])
    steps = RewriteSteps(captions=CaptionSteps(keep_raw=True))
    rewrite(Rewriting(shards, tmp_path / "out", steps))
    with ShardReader(tmp_path / "out" / "shards", "train") as reader:
        kinds = [[c.kind for c in reader.record(i)[0].candidates] for i in range(len(reader))]
    assert sorted(kinds, key=len) == [["findings"], ["raw", "findings"]]


def test_where_no_false_text_is_asked_for_none_is_refused(table, tmp_path):
    steps = RewriteSteps(modality="xray", negatives=NegativeSteps(per_text=0))
    result = rewrite(Rewriting(table, tmp_path / "out", steps))
    assert (result.num_negatives, result.refused_edits) == (0, {})


def test_shards_of_examinations_are_refused(tmp_path):
    shards = shards_of(tmp_path, ["Small effusion."])
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps(index | {"options": {**index["options"], "group": "exam"}}))
    with pytest.raises(MedclipError, match="views have words of their own") as refused:
        rewrite(Rewriting(shards, tmp_path / "out"))
    assert refused.value.reason is Reason.NOT_SUPPORTED_YET


def test_a_pack_scores_each_caption_by_its_own_image(tmp_path):
    shards = shards_of(tmp_path, ["Small effusion.", "Stable cardiomegaly. Clear apices.", "No effusion."])
    steps = RewriteSteps.model_validate({"captions": {"model": "medclip-mini"}})
    model = load_model("medclip-mini")
    result = rewrite(Rewriting(shards, tmp_path / "out", steps), model)
    pile = read_pile(shards)
    vectors = encode_pile(model, pile, np.arange(len(pile)), Silent())
    of_key = dict(zip(pile.cells("key"), vectors.vectors_MD, strict=True))
    captions = [(r["key"], c) for r in rows_of(tmp_path / "out") for c in r["candidates"]]
    cosines = np.array([of_key[key] @ model.encode_text([c["text"]])[0] for key, c in captions])
    assert len(cosines) > 3
    expected = (cosines - cosines.mean()) / cosines.std()
    assert np.allclose([c["alignment"] for _, c in captions], expected, atol=1e-3)
    assert json.loads((result.out / "rewrite.json").read_text())["model"]["sha256"]


def test_rows_that_name_no_patient_are_said_to_count_each_for_itself(tmp_path):
    reports = [f"{side} pleural effusion. {n} cm nodule." for n, side in enumerate(["Left", "Right"] * 30)]
    table = write(
        tmp_path / "t.csv", [{"key": f"k{n}", "modality": "xray", "report": r} for n, r in enumerate(reports)]
    )
    result = rewrite(Rewriting(table, tmp_path / "out"))
    assert (result.names_patients, result.cautions) == (False, ())
    assert any("names its patient" in note for note in result.notes)
    assert {r["patient"] for r in rows_of(tmp_path / "out")} == {""}


def test_that_no_text_has_a_partner_is_said(tmp_path):
    rows = [{"key": f"k{n}", "modality": "xray", "report": r} for n, r in enumerate(["Effusion.", "Pneumothorax."])]
    result = rewrite(Rewriting(write(tmp_path / "t.csv", rows), tmp_path / "out"))
    assert result.num_negatives == 0
    assert any("2 texts could be changed, and for none" in note for note in result.notes)
    steps = RewriteSteps.model_validate({"negatives": {"per_text": 0}})
    assert not rewrite(Rewriting(tmp_path / "t.csv", tmp_path / "none", steps)).notes


def test_an_endpoint_that_dies_loses_nothing_and_what_it_invents_is_refused(table, tmp_path, serve):  # noqa: F811
    gone = [True]

    def answer(number, body):
        return (503, {}) if gone[0] and number >= 1 else message("Small effusion. A large mass.")

    server = serve(answer)
    asking = EndpointAgent(server.url, "llm", waits_s=(), at_once=1)
    rewriting = Rewriting(table, tmp_path / "out", agent=ReportAgent(asking))
    with pytest.raises(MedclipError, match="does not answer"):
        rewrite(rewriting)
    asked, gone[0] = len(server.bodies), False
    result = rewrite(rewriting)
    assert len(server.bodies) - asked == 2
    assert result.refused_candidates == {"invented_entity": 2, "polarity_conflict": 1}
    assert "Dr. Who" not in json.dumps(server.bodies)


def test_an_answer_is_refused_for_what_it_denies_adds_or_compares():
    assert fault_of_answer("Large pneumothorax.", "No pneumothorax.", "xray") == "polarity_conflict"
    assert fault_of_answer("A mass.", "No pneumothorax.", "xray") == "invented_entity"
    assert fault_of_answer("Unchanged effusion.", "Effusion.", "xray") == "prior_study"
    assert fault_of_answer("Effusion.", "Small effusion.", "xray") == ""


def test_the_command_prints_json_and_names_a_wrong_key(table, tmp_path, capsys):
    assert main(["pairs", "rewrite", str(table), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 4
    (tmp_path / "s.yaml").write_text("negativs: {}\n")
    steps = ["--steps", str(tmp_path / "s.yaml")]
    assert main(["pairs", "rewrite", str(table), "--out", str(tmp_path / "b"), *steps]) != 0
    assert "negativs" in capsys.readouterr().err


def test_a_text_that_contradicts_its_label_has_no_weight_and_the_raw_one_neither(tmp_path):
    label = {"label:chest_xray_findings:effusion": "1"}
    rows = [{"key": "a", "patient": "p", "modality": "xray", "report": "No effusion."} | label]
    rewrite(Rewriting(write(tmp_path / "reports.csv", rows), tmp_path / "out"))
    (row,) = rows_of(tmp_path / "out")
    assert row["reason"] == "polarity_conflict"
    assert [(c["reason"], c["weight"]) for c in row["candidates"]] == [("polarity_conflict", 0.0)]


@pytest.mark.parametrize("steps", [{"columns": {"report": "text"}}, {"modality": "xray"}])
def test_what_steps_say_of_a_table_is_refused_with_shards(tmp_path, steps):
    shards = shards_of(tmp_path, ["Small left effusion."])
    with pytest.raises(MedclipError, match="is of a table") as refused:
        rewrite(Rewriting(shards, tmp_path / "out", RewriteSteps(**steps)))
    assert refused.value.reason == Reason.WRONG_USE
    with pytest.raises(MedclipError, match="no table is read"):
        rewrite(Rewriting(shards, tmp_path / "out", form=TextForm("latin-1")))
