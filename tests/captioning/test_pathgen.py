from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.captioning.agents.agent import AgentRefused, Answer, Revision, Usage
from medclip.captioning.checks.claims import AllowedClaims
from medclip.captioning.pathgen import room_of
from medclip.captioning.reread import reread_pixels
from medclip.errors import MedclipError, Reason
from medclip.imaging.slides import open_slide
from medclip.models.packs.pack import load_model
from tests.kits.stained_slide import write_stained

SMALL = {"size_px": 96, "num_by_attributes": 4, "num_by_clusters": 4, "workers": 1, "organ": "colon"}


class Scripted:
    """An agent of one's own: every caption is different, but for one that is copied and one with a diagnosis."""

    name, at_once, measures = "scripted", 1, False
    allowed = AllowedClaims(frozenset({"nucleus"}))

    def __init__(self, until: int = 10_000) -> None:
        self.until, self.asked = until, 0

    @property
    def identity(self) -> dict[str, str]:
        return {"agent": self.name}

    def describe(self, patch) -> Answer:
        self.asked += 1
        if self.asked > self.until:
            raise MedclipError(Reason.READ_ERROR, "the endpoint does not answer.")
        number = int(patch.pixels.astype(int).sum())
        if number % 7 == 0:
            raise AgentRefused("no answer")
        return Answer(f"Nuclei that sum to {number} in all.", Usage(1, 100, 10, 0.1))

    def revise(self, patch, text) -> Revision:
        return Revision((), Usage(1, 100, 10, 0.1))

    def summarise(self, text, room) -> Answer:
        return Answer(text, Usage(1, 50, 10, 0.1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_stained(folder / "a.tiff", height=420, width=520)
    write_stained(folder / "b.tiff", seed=1, height=420, width=520)
    (folder / "c.tiff").write_bytes((folder / "a.tiff").read_bytes()[:20_000])
    (folder / "notes.txt").write_text("no slide")
    rows = [
        "file,patient,organ,findings,license",
        'a.tiff,Jane Doe,,"crowded nuclei\nmucin pools",CC0',
        "b.tiff,Jane Doe,,,",
    ]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "out"
    return medclip.pathgen(folder, out, table=folder / "table.csv", **SMALL)


def test_every_slide_has_a_row_and_every_chosen_patch_is_a_record_or_a_reject(run):
    assert {row.file: row.status for row in run.slides} == {"a.tiff": "done", "b.tiff": "done", "c.tiff": "failed"}
    assert run.exit_code == 3
    chosen = sum(row.num_chosen for row in run.slides)
    assert 6 <= chosen == len(run.records) + len(run.rejects)
    assert run.records
    for name, rows in (("records", run.records), ("rejects", run.rejects), ("slides", run.slides)):
        assert pq.read_table(run.folder / f"{name}.parquet").num_rows == len(rows)
    assert run.usage.calls == 3 * chosen


def test_a_record_reads_again_to_the_very_pixels_and_another_slide_is_refused(run, folder):
    files = {row.slide: row.file for row in run.slides}
    for record in run.records:
        with open_slide(folder / files[record.slide]) as reader:
            assert reread_pixels(reader, record).shape == (96, 96, 3)
        assert (record.x_px, record.y_px) == (record.left_um * 2, record.top_um * 2)
    other = next(file for file in ("a.tiff", "b.tiff") if file != files[run.records[0].slide])
    with open_slide(folder / other) as reader, pytest.raises(MedclipError, match="another slide"):
        reread_pixels(reader, run.records[0])


def test_the_shards_hold_the_same_pixels_and_captions_and_pass_their_check(run, folder):
    assert medclip.shards.check(run.shards).ok
    reader = medclip.shards.open(run.shards, run.records[0].split)
    samples = {sample.key: sample for sample in (reader[i] for i in range(len(reader)))}
    assert len(samples) == len(run.records)
    files = {row.slide: row.file for row in run.slides}
    for record in run.records:
        sample = samples[record.key]
        assert sample.record.texts == (record.caption,)
        with open_slide(folder / files[record.slide]) as slide:
            assert np.array_equal(sample.image, reread_pixels(slide, record))


def test_no_name_of_a_patient_is_written_and_a_patients_slides_are_on_one_side(run):
    assert len({record.split for record in run.records}) == 1
    for path in run.folder.rglob("*"):
        if path.is_file():
            assert b"Jane" not in path.read_bytes(), path


def test_captions_speak_of_what_is_measured_and_fit_the_text_tower(run):
    room = room_of(load_model().tokenizer)
    for record in run.records:
        assert record.caption.startswith("Histology patch of colon tissue")
        assert record.num_tokens == room.count(record.caption) <= room.most
    assert set(run.rejected_by_reason) <= {"duplicate"}


def test_findings_of_one_slide_choose_no_patch_of_the_other(run):
    by_file = {row.slide: row for row in run.slides}
    assert {by_file[r.slide].file for r in run.records if "finding" in r.branches.split()} <= {"a.tiff"}
    assert {row.file: row.num_findings for row in run.slides if row.status == "done"} == {"a.tiff": 2, "b.tiff": 0}


def test_the_same_call_again_asks_nobody_and_writes_the_same_bytes(run, folder):
    before = {p.relative_to(run.shards): p.read_bytes() for p in run.shards.iterdir()}
    again = medclip.pathgen(folder, run.folder, table=folder / "table.csv", **SMALL)
    assert again.records == run.records
    assert {p.relative_to(run.shards): p.read_bytes() for p in run.shards.iterdir()} == before


def test_another_call_on_the_same_folder_is_refused(run, folder):
    with pytest.raises(MedclipError) as error:
        medclip.pathgen(folder, run.folder, table=folder / "table.csv", **{**SMALL, "seed": 5})
    assert error.value.reason is Reason.OUTPUT_IN_USE


def test_a_run_goes_on_after_its_agent_went_away_and_asks_for_nothing_twice(folder, tmp_path):
    one = folder / "a.tiff"
    first = Scripted(until=2)
    with pytest.raises(MedclipError, match="does not answer"):
        medclip.pathgen(one, tmp_path / "out", agent=first, max_tokens=32, **SMALL)
    assert not (tmp_path / "out" / "shards").exists()
    second = Scripted()
    result = medclip.pathgen(one, tmp_path / "out", agent=second, max_tokens=32, **SMALL)
    (row,) = result.slides
    assert second.asked == row.num_chosen - 2
    answered = len(result.records) + sum(reject.reason != "refused" for reject in result.rejects)
    assert result.usage.prompt_tokens == 250 * answered
    undisturbed = medclip.pathgen(one, tmp_path / "other", agent=Scripted(), max_tokens=32, **SMALL)
    assert undisturbed.records == result.records
    tars = [sorted(r.shards.glob("*.tar")) for r in (result, undisturbed)]
    assert [tar.read_bytes() for tar in tars[0]] == [tar.read_bytes() for tar in tars[1]]


def test_a_folder_without_a_slide_and_an_unknown_agent_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("nothing")
    with pytest.raises(MedclipError, match="no slide among the 1 files"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out")
    with pytest.raises(MedclipError, match="no agent called 'gpt'"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", agent="gpt")
    with pytest.raises(MedclipError, match="measuring agent asks no endpoint"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", endpoint="http://127.0.0.1:1/v1")


def test_a_long_text_is_counted_although_a_tokenizer_cuts_it():
    tokenizer = load_model().tokenizer
    room = room_of(tokenizer)
    short = "round nuclei in rows"
    assert room.count(short) == int((tokenizer.encode([short])[0] != tokenizer.pad_id).sum())
    assert room.count(" ".join([short] * 30)) > 4 * room.most
    assert room_of(tokenizer, 10_000).most == tokenizer.context_length


def test_the_command_prints_counts_and_json(run, folder, capsys):
    from medclip.cli.main import main

    options = ["--size-px", "96", "--num-by-attributes", "4", "--num-by-clusters", "4", "--workers", "1"]
    arguments = [str(folder), "--out", str(run.folder), "--table", str(folder / "table.csv"), "--organ", "colon"]
    assert main(["pathgen", *arguments, *options, "--json"]) == 3
    values = json.loads(capsys.readouterr().out)
    assert values["records"] == len(run.records)
    assert values["slides"] == {"done": 2, "skipped": 0, "failed": 1}
