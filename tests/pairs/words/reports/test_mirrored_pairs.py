"""Mirrored partners: sides change places in image and text, and who has none has a reason."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont

from medclip.errors import MedclipError
from medclip.files.output import draft_of
from medclip.pairs.pile import read_pile
from medclip.pairs.words.reports.mirrored_pairs import fault_of_mirroring, mirrored_partner, mirrored_text
from medclip.pairs.words.reports.rewrite_steps import EditSteps, RewriteSteps
from medclip.pairs.words.reports.rewriting import REPORT, Rewriting, rewrite
from medclip.pairs.words.reports.rewritten_shards import EDITS
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, to_json
from medclip.shards.stored_data import encode
from medclip.shards.writing.build import Form, build_shards
from medclip.text.captions.record import CaptionRecord
from tests.kits.shards import KEY, write


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Small left effusion.", ""),
        ("Small effusion.", "names_no_side"),
        ("RUL opacity.", "other_word"),
        ("Left effusion. Enlarged left ventricle.", "one_sided"),
        ("Right effusion along the horizontal fissure.", "one_sided"),
        ("Left arm raised.", "no_changed_entity"),
        ("Left effusion. Small right effusion.", "no_changed_entity"),
        ("No left effusion.", "no_changed_entity"),
    ],
)
def test_a_text_has_a_mirrored_partner_or_a_reason(text: str, reason: str) -> None:
    assert fault_of_mirroring(text, "xray") == reason
    assert mirrored_text(mirrored_text(text)) == text


def shards_of(folder, rows):
    rng = np.random.default_rng(0)
    for n, row in enumerate(rows):
        pixels = rng.integers(0, 255, (64, 64), np.uint8)
        if row.pop("symmetric", False):
            pixels = np.maximum(pixels, pixels[:, ::-1])
        Image.fromarray(pixels).save(folder / f"{n}.png")
        row |= {"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", "license": "CC0"}
    table = write(folder / "films.csv", rows)
    form = Form(key=KEY, stored="png")
    return build_shards(table, folder / "shards", form, settings=Settings(workers=1)).folder


def test_partners_follow_their_samples_in_the_training_split_alone(tmp_path):
    rows = [
        {"report": "Small left effusion.", "source": "clean", "split": "train"},
        {"report": "Small left effusion.", "source": "other", "split": "train"},
        {"report": "Small left effusion.", "source": "clean", "split": "train", "symmetric": True},
        {"report": "Small left effusion.", "source": "clean", "split": "val"},
    ]
    shards = shards_of(tmp_path, rows)
    steps = RewriteSteps(edits=EditSteps(mirror=True, without_letters=("clean",)))
    result = rewrite(Rewriting(shards, tmp_path / "out", steps))
    assert check_shards(result.shards).problems == ()
    reasons = sorted(row["reason"] for row in pq.read_table(tmp_path / "out" / EDITS).to_pylist())
    assert reasons == ["", "image_unchanged", "letters_not_ruled_out"]
    with ShardReader(result.shards, "train") as train, ShardReader(result.shards, "val") as val:
        assert (len(train), len(val)) == (4, 1)
        assert val.record(0)[0].edit_pairs == ()
        edited = [i for i in range(4) if b'"edited"' in train.members(i)["json"]]
        assert len(edited) == 1
        (at,) = edited
        assert train.columns.pair_N is not None
        assert np.flatnonzero(train.columns.pair_N).tolist() == [at - 1, at]
        source, partner = train.record(at - 1)[0], train.record(at)[0]
        assert (source.texts, partner.texts) == (("Small left effusion.",), ("Small right effusion.",))
        assert source.edit_pairs == partner.edit_pairs
        assert source.candidates
        assert partner.candidates == (), "words of the other side would be drawn of the mirrored image"
        np.testing.assert_array_equal(train[at].image, train[at - 1].image[:, ::-1])
        mark = json.loads(train.members(at)["json"])["edited"]
    before = {path.name: path.read_bytes() for path in (result.shards).iterdir()}
    (tmp_path / "out" / EDITS).unlink()  # as if the run had been killed there
    rewrite(Rewriting(shards, tmp_path / "out", steps))
    assert pq.read_table(tmp_path / "out" / EDITS).num_rows == 3
    assert {path.name: path.read_bytes() for path in (result.shards).iterdir()} == before
    assert (mark["kind"], mark["of"], mark["entities"]) == ("mirror", mark["pair"].split("~")[0], ["effusion"])


def test_all_words_of_the_partner_are_of_the_other_side_and_it_is_of_no_study() -> None:
    text = "Small left effusion."
    record = CaptionRecord(
        Modality.XRAY,
        laterality="L",
        texts=(text,),
        report=text,
        negatives=("Small right effusion.",),
        long_captions=(text,),
        tags=("left effusion",),
        absent_tags=("right mass",),
    )
    image = encode(np.random.default_rng(0).integers(0, 255, (32, 32, 1), np.uint8), "png", 95)
    members = {"png": image, "json": to_json(record, {"study": "S1", "source": "clean", "key": "k"})}
    edit, _ = mirrored_partner("k", members, ("clean",))
    assert edit is not None
    partner, meta = from_json(edit.members["json"])
    other = "Small right effusion."
    assert (partner.laterality, partner.texts, partner.report, partner.long_captions) == (
        "R",
        (other,),
        other,
        (other,),
    )
    assert (partner.tags, partner.absent_tags) == (("right effusion",), ("left mass",))
    assert partner.negatives == (), "a negative of the source is true of the partner"
    assert (meta["study"], meta["key"]) == ("", edit.key)
    assert from_json(edit.source["json"])[1]["study"] == "S1"


def test_partners_are_counted_marked_as_synthetic_and_made_nothing_of(tmp_path):
    rows = [{"report": f"{size} left effusion.", "source": "clean", "split": "train"} for size in ("Small", "Large")]
    rows.append({"report": "Clear lungs.", "source": "clean", "split": "train"})
    shards = shards_of(tmp_path, rows)
    steps = RewriteSteps(edits=EditSteps(mirror=True, without_letters=("clean",)))
    (tmp_path / "out").mkdir()
    result = rewrite(Rewriting(shards, tmp_path / "out", steps))
    assert (result.num_partners, dict(result.refused_partners)) == (2, {"names_no_side": 1})
    assert "partners: 2; without one: names_no_side 1" in repr(result)
    pile = read_pile(result.shards)
    assert sum(pile.cells("synthetic")) == 2
    assert str(tmp_path) not in (tmp_path / "out" / REPORT).read_text()
    again = rewrite(Rewriting(shards, tmp_path / "out", steps))
    assert again == result
    none = rewrite(Rewriting(shards, tmp_path / "none", RewriteSteps(edits=EditSteps(mirror=True))))
    assert none.cautions[-1].startswith("No edited partner was written. Of images with a fitting text the source is")


def test_a_source_that_is_not_there_and_a_table_have_no_partners(tmp_path):
    shards = shards_of(tmp_path, [{"report": "Small left effusion.", "source": "clean", "split": "train"}])
    steps = RewriteSteps(edits=EditSteps(mirror=True, without_letters=("claen",)))
    with pytest.raises(MedclipError, match="the shards have no source 'claen'") as e:
        rewrite(Rewriting(shards, tmp_path / "out", steps))
    assert "clean" in str(e.value.hint)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MedclipError, match="edited partners are written into shards; this is a table"):
        rewrite(Rewriting(tmp_path / "films.csv", tmp_path / "out", steps))


def test_what_a_killed_run_left_beside_its_results_goes(tmp_path):
    shards = shards_of(tmp_path, [{"report": "Small left effusion.", "source": "clean", "split": "train"}])
    rewrite(Rewriting(shards, tmp_path / "out"))
    shutil.rmtree(tmp_path / "out" / "shards")
    draft = draft_of(tmp_path / "out" / "shards", "shards")
    draft.mkdir()
    (draft / "train-000000.tar").write_bytes(b"words of reports")
    rewrite(Rewriting(shards, tmp_path / "out"))
    assert not draft.exists()


def test_an_image_of_another_source_takes_part_where_no_letters_are_seen_if_so_asked() -> None:
    grey = np.tile(np.linspace(20, 200, 128).astype(np.uint8), (160, 1))
    marked = Image.fromarray(grey).copy()
    ImageDraw.Draw(marked).text((8, 8), "R", fill=255, font=ImageFont.load_default(16))
    record = CaptionRecord(Modality.XRAY, texts=("Small left effusion.",))

    def row_of(pixels: np.ndarray, *, named: bool = False, detect: bool = True, burned_in: bool | None = None) -> str:
        meta = {"source": "clean" if named else "other", "key": "k", "burned_in": burned_in}
        members = {"png": encode(pixels[..., None], "png", 95), "json": to_json(record, meta)}
        return mirrored_partner("k", members, ("clean",), detect_letters=detect)[1].reason

    assert row_of(grey) == ""
    assert row_of(grey, detect=False) == "letters_not_ruled_out"
    assert row_of(np.asarray(marked)) == "letters_seen"
    assert row_of(grey, burned_in=True) == "letters_seen"
    assert row_of(np.asarray(marked), named=True) == "", "whom the user names is not looked at"
