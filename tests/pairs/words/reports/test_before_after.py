"""Two images of a patient at two dates are partners where their texts differ by one change."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.errors import MedclipError
from medclip.pairs.words.reports.before_after import Dated, dated_pairs, single_change
from medclip.pairs.words.reports.rewrite_steps import EditSteps, RewriteSteps, read_steps
from medclip.pairs.words.reports.rewriting import REPORT, Rewriting, rewrite
from medclip.pairs.words.reports.rewritten_shards import EDITS
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY, write


@pytest.mark.parametrize(
    ("text", "other", "change"),
    [
        ("Left effusion. Normal heart size.", "No effusion. Normal heart size.", ("presence", "effusion")),
        ("Small left effusion.", "Large left effusion.", ("severity", "effusion")),
        ("Left effusion.", "Right effusion.", ("side", "effusion")),
        ("Pacemaker in place.", "No pacemaker.", ("device", "pacemaker")),
        ("Small left effusion.", "Large right effusion.", "several_changes"),
        ("Effusion. No pneumothorax.", "No effusion. Pneumothorax.", "several_changes"),
        ("Left effusion.", "Clear lungs.", "not_in_both"),
        ("Left effusion.", "There is a left effusion.", "no_change"),
    ],
)
def test_texts_differ_by_one_change_or_there_is_a_reason(text, other, change):
    assert single_change(text, other, "xray") == change
    assert single_change(other, text, "xray") == change


def dated(key: str, text: str = "Effusion.", day: int | None = 1, patient: str = "P", view: str = "PA") -> Dated:
    return Dated(key, patient, ("xray", view, ""), text, None if day is None else date(2020, 1, day))


def test_an_image_is_of_one_pair_and_the_others_have_their_reasons():
    images = [
        dated("a"),
        dated("b", "No effusion.", 2),
        dated("c", "No effusion.", 3),
        dated("d", "No effusion.", 4, view="LATERAL"),
        dated("e", "No effusion.", None),
        dated("f", ""),
        dated("g", patient=""),
        dated("h", patient="Q"),
        dated("i", "No effusion.", 1, patient="Q"),
        dated("j", "Effusion.", 1, patient="R"),
        dated("k", "Effusion.", 9, patient="R"),
    ]
    names, rows = dated_pairs(images)
    assert names == {"a": "a~before_after", "b": "a~before_after"}
    assert [(row.key, row.partner, row.reason, row.change) for row in rows] == [
        ("a", "b", "", "presence"),
        ("b", "a", "", "presence"),
        ("c", "", "no_change", ""),
        ("d", "", "other_view", ""),
        ("e", "", "no_date", ""),
        ("f", "", "no_text", ""),
        ("g", "", "no_patient", ""),
        ("h", "", "one_date", ""),
        ("i", "", "one_date", ""),
        ("j", "", "no_change", ""),
        ("k", "", "no_change", ""),
    ]


def test_an_image_whose_partner_has_another_one_says_so():
    _, rows = dated_pairs([dated("a"), dated("b", "No effusion.", 2), dated("c", day=3)])
    assert [row.reason for row in rows] == ["", "", "taken"]


def films(folder):
    rng = np.random.default_rng(0)
    rows = []
    texts = ("Small left effusion. Heart size is normal.", "No effusion. Heart size is normal.")
    for n in range(6):
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(folder / f"{n}.png")
        split = "val" if n > 3 else "train"
        rows.append(
            {"file": f"{n}.png", "patient": f"P{n // 2}", "modality": "xray", "view": "PA", "report": texts[n % 2]}
            | {"split": split, "license": "CC0", "day": f"2019-03-{n + 10}", "source": "here"}
        )
    table = write(folder / "films.csv", rows)
    return build_shards(table, folder / "shards", Form(key=KEY, stored="png"), settings=Settings(workers=1)).folder


def test_both_images_stay_as_they_are_and_name_their_pair_but_never_a_date(tmp_path):
    shards = films(tmp_path)
    (tmp_path / "rewrite.yaml").write_text("edits: {table: films.csv, date: day, mirror: true}\n")
    steps = read_steps(tmp_path / "rewrite.yaml")
    result = rewrite(Rewriting(shards, tmp_path / "out", steps, folder=tmp_path))
    assert check_shards(result.shards).problems == ()
    assert result.num_partners == 2
    rows = pq.read_table(tmp_path / "out" / EDITS).to_pylist()
    assert [(r["kind"], r["reason"], r["change"], r["entities"]) for r in rows[:4]] == [
        ("before_after", "", "presence", ["effusion"])
    ] * 4
    assert {r["reason"] for r in rows[4:]} == {"has_partner"}
    with ShardReader(result.shards, "train") as train, ShardReader(result.shards, "val") as val:
        assert (len(train), len(val)) == (4, 2)
        names = [train.record(n)[0].edit_pairs for n in range(4)]
        assert len(set(names)) == 2
        assert train.columns.pair_N is not None
        assert np.count_nonzero(train.columns.pair_N) == 4
        assert [val.record(n)[0].edit_pairs for n in range(2)] == [(), ()]
        assert not any(b"synthetic" in train.members(n)["json"] for n in range(4))
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(b"2019" in path.read_bytes() for path in written if path.suffix != ".tar")
    assert str(tmp_path) not in (tmp_path / "out" / REPORT).read_text()


def test_a_changed_table_is_another_rewriting_and_a_bad_day_is_refused(tmp_path):
    shards = films(tmp_path)
    steps = RewriteSteps(edits=EditSteps(table="films.csv", date="day"))
    rewrite(Rewriting(shards, tmp_path / "out", steps, folder=tmp_path))
    table = tmp_path / "films.csv"
    table.write_text(table.read_text().replace("2019-03-10", "2019-04-10"))
    with pytest.raises(MedclipError, match="this folder holds other rewritten captions: the edit table differs"):
        rewrite(Rewriting(shards, tmp_path / "out", steps, folder=tmp_path))
    table.write_text(table.read_text().replace("2019-04-10", "Doe 1970"))
    with pytest.raises(MedclipError, match="row 1: `day` is no date") as e:
        rewrite(Rewriting(shards, tmp_path / "new", steps, folder=tmp_path))
    assert "Doe" not in str(e.value)


@pytest.mark.parametrize("edits", ["{date: day}", "{table: a.csv}"])
def test_a_column_needs_its_table_and_a_table_a_column(tmp_path, edits):
    (tmp_path / "rewrite.yaml").write_text(f"edits: {edits}\n")
    with pytest.raises(MedclipError, match="needs a column"):
        read_steps(tmp_path / "rewrite.yaml")
