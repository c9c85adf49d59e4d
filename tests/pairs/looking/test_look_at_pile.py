"""One look at a pile: what is planted is counted exactly, and no patient is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model
from medclip.pairs.looking.look_at_pile import _of_patients, look_at_pile
from medclip.pairs.looking.pile_look import PileLook
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.selection.deduplicate import DeduplicateSettings, deduplicate
from medclip.progress import Silent
from medclip.reports.look import render_look
from medclip.settings import Settings
from tests.kits.image_piles import context_of, pile_of
from tests.kits.leakage import Pixels, film, resized_jpeg
from tests.kits.signal_shards import mixed_table, signal_shards, write_records


@pytest.fixture(scope="module")
def films() -> list[Pixels]:
    return [film(seed, 120, 110) for seed in range(40)]


def looked(pile: Pile, folder: Path, *others: Pile, **more: Any) -> PileLook:
    options = {"model": None, "metadata": "built-in", "num_examples": 3, "thumbnails": True, "seed": 0} | more
    settings = context_of(folder).settings
    return look_at_pile(
        pile, folder / "out", others=others, settings=settings, render=render_look, progress=Silent(), **options
    )


@pytest.fixture(scope="module")
def planted(films: list[Pixels]) -> tuple[Pile, Pile]:
    """Make 30 films with 4 copies, one of them under another patient, one in another split; and 8 of evaluation."""
    images = [*films[:30], films[0], resized_jpeg(films[1]), films[2], films[3]]
    images += [resized_jpeg(films[30]), films[31], films[39], films[38]]  # two evaluation images, one of its patients
    patients = [*(f"P{n}" for n in range(30)), "P0", "P1", "Q2", "P3", "R0", "R1", "E35", "R1"]
    splits = ["train"] * 30 + ["train", "train", "train", "test", "train", "train", "train", "train"]
    texts = [f"There is no pneumothorax. A nodule of {n} mm is seen." for n in range(len(images))]
    pile = pile_of(images, patient=patients, split=splits, text=texts, modality=["xray"] * len(images))
    return pile, pile_of(films[30:38], patient=[f"E{n}" for n in range(30, 38)])


@pytest.fixture(scope="module")
def look(planted: tuple[Pile, Pile], tmp_path_factory: pytest.TempPathFactory) -> PileLook:
    return looked(planted[0], tmp_path_factory.mktemp("look"), planted[1])


def test_what_is_planted_is_counted_exactly(look: PileLook) -> None:
    assert look.copies.num_copies == 4
    assert look.copies.by_way == {"pixels": 3, "hash": 1}
    assert np.flatnonzero(look.copies.across_patients_N).tolist() == [2, 32]
    assert np.flatnonzero(look.copies.across_splits_N).tolist() == [3, 33]
    (against,) = look.against
    assert np.flatnonzero(against.has_image_N).tolist() == [34, 35]
    assert np.flatnonzero(against.has_patient_N).tolist() == [34, 35, 36, 37]  # another image of R1, who is there
    assert against.num_patients == 3
    assert look.num_patients_in_splits == 1
    texts = [one.text for one in look.findings]
    assert texts[0].startswith("4 pairs (11 %) must not be trained on where pile.csv is an evaluation set: 2 by the")
    assert [one.severity for one in look.findings] == sorted(
        (one.severity for one in look.findings), key=["bad", "wait", "good"].index
    )


def test_pairs_to_drop_are_those_that_deduplicate_drops(
    planted: tuple[Pile, Pile], look: PileLook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pile, held_out = planted
    monkeypatch.setattr("medclip.pairs.selection.deduplicate.read_pile", lambda *_, **__: held_out)
    settings = DeduplicateSettings(evaluation=("e",))
    verdict = deduplicate(pile, np.arange(len(pile)), settings, context_of(tmp_path), 0)
    assert int((~verdict.kept_M).sum()) == look.copies.num_copies + int(look.against[0].to_drop_N.sum())
    assert not verdict.kept_M[look.against[0].to_drop_N].any()


def test_the_folder_has_the_page_its_figures_and_its_tables(look: PileLook) -> None:
    assert look.out is not None
    facts = json.loads((look.out / "look.json").read_text())
    assert facts | {"out": str(look.out)} == json.loads(json.dumps(look.to_dict()))
    assert facts["against"][0]["to_drop"] == 4
    for name, table in look.tables().items():
        assert pq.read_table(look.out / f"{name}.parquet").num_rows == table.num_rows
        assert (look.out / f"{name}.csv").is_file()
    assert pq.read_table(look.out / "pairs.parquet")["in_evaluation"].to_pylist().count(True) == 4
    assert pq.read_table(look.out / "links.parquet").num_rows == 6 + _repeats(look)
    assert sum(row["pairs"] for row in look._rows() if row["column"] == "split") == 38
    assert len(repr(look).splitlines()) < 10
    assert "<table>" in look._repr_html_()
    assert look.to_pandas().shape == (len(look.counts), 5)


def _repeats(look: PileLook) -> int:
    """Count links to evaluation images beyond one for each row: an image is linked in more than one way."""
    return len(look.against[0].links.one_K) - 2


def test_the_page_names_no_patient_and_no_key_and_loads_nothing(look: PileLook) -> None:
    assert look.out is not None
    page = (look.out / "look.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert not any(f">{name}<" in page or f"{name} " in page for name in ("P3", "E35", "k00003"))


def test_no_single_patient_is_on_a_page_without_examples(films: list[Pixels], tmp_path: Path) -> None:
    texts = [f"There is no pneumothorax. A nodule of {n} mm is seen." for n in range(10)]
    looked(pile_of(films[:10], text=texts, patient=[str(n) for n in range(10)]), tmp_path, num_examples=0)
    page = (tmp_path / "out" / "look.html").read_text()
    assert "data:image/jpeg" not in page
    assert " mm is seen" not in page
    assert "There is no pneumothorax." in page  # ten patients share it


def test_images_are_left_out_on_demand_and_those_with_burned_in_letters_always(
    films: list[Pixels], tmp_path: Path
) -> None:
    pile = pile_of(films[:3], text=["one film", "two films", "three films"], burned_in=["True", "False", ""])
    look = looked(pile, tmp_path)
    assert sorted((one.row, one.image is not None, one.is_withheld) for one in look.examples) == [
        (0, False, True),
        (1, True, False),
        (2, True, False),
    ]
    assert "Image withheld" in (tmp_path / "out" / "look.html").read_text()
    assert not any(one.image for one in looked(pile, tmp_path, thumbnails=False).examples)


def test_an_image_that_cannot_be_read_is_counted_and_ends_nothing(films: list[Pixels], tmp_path: Path) -> None:
    broken = MedclipError(Reason.CORRUPT, "no image.")
    look = looked(pile_of([films[0], broken, films[1]], text=["a b c", "", "<script>x</script> & more"]), tmp_path)
    assert look.copies.unread == {"corrupt": 1}
    texts = " ".join(one.text for one in look.findings)
    assert "1 pair (33 %) has an image that cannot be read: corrupt 1." in texts
    assert "1 pair (33 %) has neither a caption nor a report." in texts
    assert "<script>x" not in (tmp_path / "out" / "look.html").read_text()


@pytest.mark.parametrize(
    ("split", "severity", "words"),
    [("train", "wait", "are synthetic: made"), ("test", "bad", "in splits of evaluation are synthetic")],
)
def test_synthetic_pairs_are_counted_and_lead_the_page_in_a_split_of_evaluation(
    films: list[Pixels], tmp_path: Path, split: str, severity: str, words: str
) -> None:
    texts = [f"Film number {n} of a chest." for n in range(4)]
    pile = pile_of(films[:4], text=texts, patient=list("ABCD"), split=[split] * 4, synthetic=["", "pasted", "1", "0"])
    look = looked(pile, tmp_path / "look")
    assert look.num_synthetic == 2
    assert look.num_synthetic_held_out == 2 * (split == "test")
    assert any(one.severity == severity and words in one.text and one.pairs == 2 for one in look.findings)
    assert look.to_dict()["synthetic"] == 2


def test_a_pile_without_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as refused:
        looked(pile_of(text=[]), tmp_path)
    assert refused.value.reason is Reason.NOTHING_TO_DO
    assert not (tmp_path / "out").exists()


def test_examples_are_of_one_patient_each() -> None:
    rows, patients_N = np.array([3, 2, 0, 1]), np.array([7, 7, 5, 5])
    assert _of_patients(rows, patients_N, 2) == [3, 0]
    assert _of_patients(rows, patients_N, 9) == [3, 0]


def test_ecg_records_are_drawn_and_their_copies_are_counted_by_the_bytes_of_signals(tmp_path: Path) -> None:
    names = write_records(tmp_path, 3)
    (tmp_path / "again.hea").write_text((tmp_path / names[0]).read_text().replace("r000 ", "again ", 1))
    rows = [f"{name},P{n},ecg,Sinus rhythm {n}." for n, name in enumerate([*names, "again.hea", "gone.hea"])]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient,modality,caption", *rows]) + "\n")
    pile = read_pile(tmp_path / "t.csv", settings=Settings(workers=1))
    look = looked(pile, tmp_path, num_examples=9)
    assert look.thing == "record"
    assert look.copies.num_copies == 1
    assert np.flatnonzero(look.copies.across_patients_N).tolist() == [0, 3]
    assert sum(look.copies.unread.values()) == 1
    assert sum((one.image or b"").startswith(b"\x89PNG") for one in look.examples) == 4
    page = (tmp_path / "out" / "look.html").read_text()
    assert "data:image/png" in page
    assert "by equal bytes of the signal" in page
    assert "vectors of a pack, which link images that were changed, are left out" in page


def test_a_pack_of_images_is_refused_beside_ecg_records(tmp_path: Path) -> None:
    pile = read_pile(signal_shards(tmp_path, ("train",) * 2))
    with pytest.raises(MedclipError, match="takes images, and these pairs are of ECG records") as error:
        looked(pile, tmp_path, model=load_model("medclip-mini"))
    assert error.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "out").exists()


def test_in_a_pile_of_images_and_ecg_records_each_row_is_read_by_its_kind(tmp_path: Path) -> None:
    look = looked(
        read_pile(mixed_table(tmp_path), settings=Settings(workers=1)),
        tmp_path,
        model=load_model("medclip-mini"),
        num_examples=9,
    )
    assert look.thing == "image or record"
    assert (look.copies.num_copies, sum(look.copies.unread.values())) == (1, 0)
    assert np.flatnonzero(look.copies.across_patients_N).tolist() == [0, 4]
    assert look.alignment is not None
    assert np.isfinite(look.alignment.cosine_N).tolist() == [False, True, False, True, False]
    assert look.tables()["pairs"].column("no_cosine").to_pylist() == [
        "other_input",
        "",
        "other_input",
        "",
        "other_input",
    ]
    assert [one.modality for one in look.alignment.modalities] == ["xray"]
    assert any("3 pairs (60 %) have no cosine" in one.text for one in look.findings)
    kinds = {(one.modality, (one.image or b"")[:4]) for one in look.examples}
    assert kinds == {("ecg", b"\x89PNG"), ("xray", b"\xff\xd8\xff\xe0")}
    assert {one.cosine is None for one in look.examples if one.modality == "ecg"} == {True}
    page = (tmp_path / "out" / "look.html").read_text()
    assert "A look at 5 pairs" in page
    assert "Some pairs are of ECG records" in page
