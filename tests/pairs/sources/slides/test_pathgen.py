from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.errors import MedclipError, Reason
from medclip.files.output import draft_of
from medclip.imaging.slides import open_slide
from medclip.models.packs.pack import load_model
from medclip.pairs.selection.patches import choose_patches
from medclip.pairs.sources.slides import patch_captions as run_module
from medclip.pairs.sources.slides.patch_captions import reread_pixels
from medclip.pairs.sources.slides.pathgen import room_of
from medclip.pairs.words.agent import AgentRefused, Answer, Revision, Usage
from medclip.pairs.words.patch_caption_check import AllowedClaims
from medclip.slides.stages.stage import EmbedStage
from tests.kits.dicom_slides import shows
from tests.kits.kills import left_behind
from tests.kits.scoring import make_pack
from tests.kits.slides import make_pathology_pack, make_worded_pathology_pack, write_dicom_slide, write_pyramid
from tests.kits.stained_slide import draw_stained, write_stained

SMALL = {"size_px": 96, "num_by_attributes": 4, "num_by_clusters": 4, "workers": 1, "organ": "colon"}
SMALL |= {"most_cosine": 0.9999}  # what is drawn looks much alike to a model that learned from real tissue


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    return make_worded_pathology_pack(tmp_path_factory.mktemp("packs") / "worded")


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
def run(folder, pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "out"
    return medclip.pathgen(folder, out, model=pack, table=folder / "table.csv", **SMALL)


@pytest.mark.slow
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
            assert reread_pixels(reader, vars(record)).shape == (96, 96, 3)
        assert (record.x_px, record.y_px) == (record.left_um * 2, record.top_um * 2)
    other = next(file for file in ("a.tiff", "b.tiff") if file != files[run.records[0].slide])
    with open_slide(folder / other) as reader, pytest.raises(MedclipError, match="another slide"):
        reread_pixels(reader, vars(run.records[0]))


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
            assert np.array_equal(sample.image, reread_pixels(slide, vars(record)))


def test_a_sample_of_the_shards_says_by_itself_where_its_pixels_are_from(run, folder):
    """The reference writes `wsi_id` and reads `WSI_id`."""
    files = {row.slide: row.file for row in run.slides}
    num = 0
    for path in run.shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if not name.endswith(".json"):
                    continue
                where = json.load(tar.extractfile(name))["slide"]  # pyright: ignore[reportArgumentType]
                with open_slide(folder / files[where["slide"]]) as reader:
                    assert reread_pixels(reader, where).shape == (96, 96, 3)
                num += 1
    assert num == len(run.records) > 0


def test_a_patch_is_one_field_of_tissue_on_slides_of_any_scale_and_its_corner_counts_the_finest_pixels(pack, tmp_path):
    """The reference takes 672 px of the finest level whatever that is: a field of 336 µm at 20x, of 168 µm at 40x."""
    (tmp_path / "in").mkdir()
    image = draw_stained(height=420, width=520)
    write_pyramid(tmp_path / "in" / "20x.tiff", image)
    write_pyramid(tmp_path / "in" / "40x.tiff", image.repeat(2, 0).repeat(2, 1), mpp=0.25, steps=(1, 4))
    result = medclip.pathgen(
        tmp_path / "in", tmp_path / "out", model=pack, agent=Scripted(), **{**SMALL, "max_tokens": 32}
    )
    scale = {row.slide: row.mpp_um for row in result.slides}
    fields = {row.file: row.num_patches for row in result.slides}
    assert sorted(scale.values()) == [0.25, 0.5]
    assert abs(fields["20x.tiff"] - fields["40x.tiff"]) <= 4
    assert {record.slide for record in result.records} == set(scale)
    for record in result.records:
        assert (record.size_px, record.mpp_um) == (96, 0.5)
        assert record.x_px == round(record.left_um / scale[record.slide])
        assert record.y_px == round(record.top_um / scale[record.slide])


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


def test_the_same_call_again_asks_nobody_and_writes_the_same_bytes(run, folder, pack):
    before = left_behind(run.folder)
    again = medclip.pathgen(folder, run.folder, model=pack, table=folder / "table.csv", **SMALL)
    assert again.records == run.records
    assert left_behind(run.folder) == before


def test_half_written_shards_of_a_run_that_was_killed_do_not_stay(run, folder, pack):
    before = left_behind(run.folder)
    left = draft_of(run.folder / "shards")
    left.mkdir()
    (left / "train-000000.tar").write_bytes(b"pixels of a patient")
    medclip.pathgen(folder, run.folder, model=pack, table=folder / "table.csv", **SMALL)
    assert not left.exists()
    assert left_behind(run.folder) == before


def test_another_call_on_the_same_folder_is_refused(run, folder, pack):
    with pytest.raises(MedclipError) as error:
        medclip.pathgen(folder, run.folder, model=pack, table=folder / "table.csv", **{**SMALL, "seed": 5})
    assert error.value.reason is Reason.OUTPUT_IN_USE


def test_a_run_goes_on_after_its_agent_went_away_and_asks_for_nothing_twice(folder, pack, tmp_path):
    one, how = folder / "a.tiff", {"model": pack, "max_tokens": 32, **SMALL}
    first = Scripted(until=2)
    with pytest.raises(MedclipError, match="does not answer"):
        medclip.pathgen(one, tmp_path / "out", agent=first, **how)
    assert not (tmp_path / "out" / "shards").exists()
    second = Scripted()
    result = medclip.pathgen(one, tmp_path / "out", agent=second, **how)
    (row,) = result.slides
    assert second.asked == row.num_chosen - 2
    answered = len(result.records) + sum(reject.reason != "refused" for reject in result.rejects)
    assert result.usage.prompt_tokens == 250 * answered
    undisturbed = medclip.pathgen(one, tmp_path / "other", agent=Scripted(), **how)
    assert undisturbed.records == result.records
    tars = [sorted(r.shards.glob("*.tar")) for r in (result, undisturbed)]
    assert [tar.read_bytes() for tar in tars[0]] == [tar.read_bytes() for tar in tars[1]]


def test_a_folder_without_a_slide_and_an_unknown_agent_are_refused(pack, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("nothing")
    with pytest.raises(MedclipError, match="no slide among the 1 files"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", model=pack)
    with pytest.raises(MedclipError, match="agent is one of measured, endpoint and local, not 'gpt'"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", agent="gpt")
    with pytest.raises(MedclipError, match="measuring agent asks no endpoint"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", endpoint="http://127.0.0.1:1/v1")
    with pytest.raises(MedclipError, match="a local agent needs the folder of its model"):
        medclip.pathgen(tmp_path / "in", tmp_path / "out", agent="local")


def test_what_no_patch_could_be_chosen_by_is_refused_before_a_slide_is_read(folder, pack, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(MedclipError, match="not trained on pathology"):
        medclip.pathgen(folder, out, model=make_pack(tmp_path / "films"), **SMALL)
    with pytest.raises(MedclipError, match="no attributes of the organ 'colom'"):
        medclip.pathgen(folder, out, model=pack, **{**SMALL, "organ": "colom"})
    table = pa.table({"file": ["a.tiff"], "organ": ["colom"]})
    with pytest.raises(MedclipError, match=r"a\.tiff: there are no attributes of the organ 'colom'"):
        medclip.pathgen(folder, out, model=pack, table=table, **SMALL)
    with pytest.raises(MedclipError, match="do not sum to 1"):
        medclip.pathgen(folder, out, model=pack, splits={"train": 0.5}, **SMALL)
    assert not out.exists()


def test_the_vectors_are_a_store_that_says_what_became_of_each_slide(run, pack):
    store = medclip.slides.open_store(run.folder / "slides")
    assert {row.file: row.status for row in store.rows} == {row.file: row.status for row in run.slides}
    (cut,) = [row for row in run.slides if row.status == "failed"]
    assert (cut.reason, cut.num_patches, cut.num_chosen) == (Reason.TRUNCATED, 0, 0)
    by_file = {row.file: row for row in store.rows}
    for slide in run.slides:
        if slide.status != "done":
            continue
        features = store.read(by_file[slide.file].key)
        assert slide.num_patches == len(features)
        assert slide.num_encoded == int((features.quality["flags"] == 0).sum())
        corners = {tuple(corner) for corner in features.corners_um_N2.tolist()}
        assert all((r.top_um, r.left_um) in corners for r in run.records if r.slide == slide.slide)


def test_vectors_that_are_there_give_the_same_records_and_are_read_where_they_are(run, folder, pack, tmp_path):
    how = {"model": pack, "table": folder / "table.csv", **SMALL}
    result = medclip.pathgen(folder, tmp_path / "out", store=run.folder / "slides", **how)
    assert not (tmp_path / "out" / "slides").exists()
    assert result.records == run.records
    assert result.slides == run.slides
    assert {p.name: p.read_bytes() for p in result.shards.glob("*.tar")} == {
        p.name: p.read_bytes() for p in run.shards.glob("*.tar")
    }


def test_vectors_of_other_patches_or_another_model_and_without_qualities_are_refused(run, folder, pack, tmp_path):
    store = run.folder / "slides"
    with pytest.raises(MedclipError, match=r"Its own are --size-px 96 --patch-mpp-um 0\.5"):
        medclip.pathgen(folder, tmp_path / "out", model=pack, store=store, **{**SMALL, "size_px": 128})
    with pytest.raises(MedclipError, match="another size, scale or stain"):
        medclip.pathgen(folder, tmp_path / "out", model=pack, store=store, stain="hed", **SMALL)
    other = make_pathology_pack(tmp_path / "other")
    with pytest.raises(MedclipError, match="embedded with another pack: worded"):
        medclip.pathgen(folder, tmp_path / "out", model=other, store=store, **SMALL)
    plain = medclip.slides.embed(folder / "a.tiff", tmp_path / "plain", model=pack, size_px=96, by_piece=True)
    with pytest.raises(MedclipError, match="--qc"):
        medclip.pathgen(folder / "a.tiff", tmp_path / "out", model=pack, store=plain.folder, **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_slide_of_several_files_is_one_slide_whose_records_lead_back_to_it(pack, tmp_path):
    (tmp_path / "in").mkdir()
    image = draw_stained(height=512, width=640)
    write_dicom_slide(tmp_path / "in" / "level.dcm", image, photometric="RGB")
    write_dicom_slide(tmp_path / "in" / "label.dcm", image[:128, :128], photometric="RGB", edit=shows("LABEL"))
    how = {"model": pack, "agent": Scripted(), **SMALL, "max_tokens": 32}
    result = medclip.pathgen(tmp_path / "in", tmp_path / "out", **how)
    assert [(row.status, row.reason) for row in result.slides] == [("done", None)]
    assert result.records
    with open_slide(sorted((tmp_path / "in").iterdir())) as reader:
        for record in result.records:
            reread_pixels(reader, vars(record))


def test_a_slide_that_states_no_scale_is_read_at_the_one_of_the_table_or_fails(pack, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.tiff", "b.tiff"):
        write_pyramid(tmp_path / "in" / name, draw_stained(height=420, width=520, seed=ord(name[0])), mpp=None)
    table = pa.table({"file": ["a.tiff"], "mpp_um": ["0.5"]})
    how = {"model": pack, "agent": Scripted(), **SMALL, "max_tokens": 32}
    result = medclip.pathgen(tmp_path / "in", tmp_path / "out", table=table, **how)
    rows = {row.file: (row.status, row.reason, row.mpp_um) for row in result.slides}
    assert rows == {"a.tiff": ("done", None, 0.5), "b.tiff": ("failed", Reason.NO_SCALE, None)}
    assert result.records


def test_a_slide_that_failed_is_embedded_once_more_where_that_is_asked_for_and_no_store_is_named(
    run, folder, pack, tmp_path, monkeypatch
):
    shutil.copy(folder / "b.tiff", tmp_path / "b.tiff")
    how = {"model": pack, "agent": Scripted(), **SMALL, "max_tokens": 32}
    with monkeypatch.context() as once:
        once.setattr(EmbedStage, "finish", broken)
        first = medclip.pathgen(tmp_path / "b.tiff", tmp_path / "out", **how)
    assert [(row.status, row.reason) for row in first.slides] == [("failed", Reason.TIMEOUT)]
    assert medclip.pathgen(tmp_path / "b.tiff", tmp_path / "out", **how).slides == first.slides
    with pytest.raises(MedclipError, match="or medclip pathgen began it") as noted:
        medclip.retry(tmp_path / "out" / "slides", reason="timeout")
    assert noted.value.hint is not None
    assert noted.value.hint.endswith("or repeat its command, which tries them again.")
    again = medclip.pathgen(tmp_path / "b.tiff", tmp_path / "out", **how)
    assert [row.status for row in again.slides] == ["done"]
    with pytest.raises(MedclipError, match="where a store is named"):
        medclip.pathgen(folder, tmp_path / "o", store=run.folder / "slides", batch_size=2, **how)


def broken(self, slide):
    raise MedclipError(Reason.TIMEOUT, "it took too long.")


def test_slides_that_came_went_or_changed_since_they_were_embedded_have_rows_that_say_so(run, folder, pack, tmp_path):
    shutil.copytree(folder, tmp_path / "in")
    write_stained(tmp_path / "in" / "b.tiff", seed=3, height=420, width=520)
    (tmp_path / "in" / "a.tiff").unlink()
    write_stained(tmp_path / "in" / "new.tiff", seed=2, height=300, width=300)
    result = medclip.pathgen(tmp_path / "in", tmp_path / "out", model=pack, store=run.folder / "slides", **SMALL)
    rows = {row.file: (row.status, row.reason) for row in result.slides}
    assert rows == {
        "a.tiff": ("failed", Reason.MISSING_FILE),
        "b.tiff": ("failed", Reason.CHANGED),
        "c.tiff": ("failed", Reason.TRUNCATED),
        "new.tiff": ("failed", Reason.MISSING_FILE),
    }
    assert result.records == ()


def test_slides_that_came_since_are_taken_in_although_the_table_grew_and_what_was_chosen_stays(
    folder, pack, tmp_path, monkeypatch
):
    source, out = tmp_path / "in", tmp_path / "in" / "captions"
    source.mkdir()
    shutil.copy(folder / "a.tiff", source / "a.tiff")
    how = {"model": pack, "agent": Scripted(), "hash_paths": True, **SMALL, "max_tokens": 32}
    first = medclip.pathgen(source, out, table=pa.table({"file": ["a.tiff"], "patient": ["P1"]}), **how)
    shutil.copy(folder / "b.tiff", source / "b.tiff")
    table = pa.table({"file": ["a.tiff", "b.tiff"], "patient": ["P1", "P2"], "findings": ["", "mucin pools"]})
    chosen = []
    monkeypatch.setattr(run_module, "choose_patches", lambda *a: chosen.append(a) or choose_patches(*a))
    second = medclip.pathgen(source, out, table=table, **how)
    assert len(chosen) == 1
    assert [row.status for row in second.slides] == ["done", "done"]
    assert all(row.file.startswith("path:") for row in second.slides)
    assert {row.num_findings for row in second.slides} == {0, 1}
    assert {r for r in second.records if r.slide == first.slides[0].slide} == set(first.records)


def test_a_long_text_is_counted_although_a_tokenizer_cuts_it():
    tokenizer = load_model().tokenizer
    room = room_of(tokenizer)
    short = "round nuclei in rows"
    assert room.count(short) == int((tokenizer.encode([short])[0] != tokenizer.pad_id).sum())
    assert room.count(" ".join([short] * 30)) > 3 * room.most
    assert room_of(tokenizer, 10_000).most == tokenizer.context_length


def test_the_command_prints_counts_and_json(run, folder, pack, capsys):
    from medclip.cli.main import main

    options = ["--size-px", "96", "--num-by-attributes", "4", "--num-by-clusters", "4", "--workers", "1"]
    arguments = [str(folder), "--out", str(run.folder), "--table", str(folder / "table.csv"), "--organ", "colon"]
    arguments += ["--model", str(pack), "--most-cosine", "0.9999"]
    assert main(["pathgen", *arguments, *options, "--json"]) == 3
    values = json.loads(capsys.readouterr().out)
    assert values["records"] == len(run.records)
    assert values["slides"] == {"done": 2, "skipped": 0, "failed": 1}


def test_a_caption_that_was_refused_of_one_slide_is_no_duplicate_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from medclip.pairs.sources.slides import patch_records as module

    refused = ("claim", "not in its report")
    monkeypatch.setattr(module, "check_patch_caption", lambda _, __, allowed: None if allowed else refused)
    agent: Any = SimpleNamespace(measures=False, allowed=SimpleNamespace(with_texts=lambda findings: findings))
    journal: Any = SimpleNamespace(
        choice=lambda _: {"chosen": [{"number": 0}]}, texts=lambda _: [(0, {"caption": "Necrosis."})]
    )
    seen: set[str] = set()
    problems = []
    for key, findings in (("a", ()), ("b", ("necrosis",)), ("c", ("necrosis",))):
        slide: Any = SimpleNamespace(key=key, problem=None, prompts=SimpleNamespace(findings=findings))
        problems += [problem for _, _, problem in module._checked(slide, agent, None, journal, seen)]  # type: ignore[arg-type]
    assert [None if problem is None else problem[0] for problem in problems] == ["claim", None, "duplicate"]
