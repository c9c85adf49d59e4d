"""What a model was trained on, as packs, shards and tables say it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from medclip.auditing.checks.leakage import training_data
from medclip.auditing.checks.leakage.checks import check
from medclip.auditing.checks.leakage.file_hashes import image_hashes
from medclip.auditing.checks.leakage.training_data import of_pack, of_shards, of_table
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash
from medclip.imaging.perceptual_hash import hash_images, hash_lines
from medclip.models.packs.card import Adaptation, Card
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.folder import SAMPLES, SYNTHETIC
from medclip.shards.writing.build import Form, build_shards
from tests.kits.files import write_image
from tests.kits.leakage import brighter, cohort_of, film, resized_jpeg
from tests.kits.shards import KEY, write

ADAPTED = {
    "task": "chest_xray_view",
    "method": "norm",
    "title": "LayerNorm tuning",
    "head": "linear",
    "changed_towers": False,
    "base": "tiny",
    "base_version": "1",
    "base_digest": "0",
    "shots": 1,
    "seed": 0,
    "init_seed": 0,
    "num_train": 1,
    "num_val": 1,
    "num_train_by_class": {},
    "num_trainable": 1,
    "shots_file": "shots.csv",
}


def write_card(folder: Path, *, shots: bool = False, lists: bool = True, **adapted: object) -> Path:
    """Write what of a pack tells its training files."""
    folder.mkdir()
    listed = {"train_hashes_file": "t.txt", "patient_hashes_file": "p.txt"} if lists else {}
    made = Adaptation.model_validate({**ADAPTED, "num_in_training": 0, **adapted}) if shots else None
    (folder / "card.json").write_text(Card(name="tiny", adapted=made, **listed).to_json())  # type: ignore[arg-type]
    (folder / "t.txt").write_text("aa\nbb\ns1\n" if shots else "aa\nbb\n")
    (folder / "p.txt").write_text("p1\nq1\n" if shots else "p1\n")
    (folder / "shots.csv").write_text("sha256,patient,role,label\ns1,q1,train,ap\ns2,q2,val,pa\n")
    return folder


def test_a_pack_gives_the_hashes_on_its_lists(tmp_path: Path):
    (found,) = of_pack(write_card(tmp_path / "pack"))
    assert (found.sha256, found.patients, found.hashed) == ({"aa", "bb"}, {"p1"}, True)
    assert found.name == "the training files of tiny"
    (silent,) = of_pack(write_card(tmp_path / "silent", lists=False))
    assert (silent.sha256, silent.patients) == (None, None)


def test_an_adapted_pack_gives_its_shots_apart_from_the_bases_files(tmp_path: Path):
    base, shots = of_pack(write_card(tmp_path / "pack", shots=True))
    assert (base.sha256, base.patients) == ({"aa", "bb"}, {"p1"})
    assert (shots.sha256, shots.patients) == ({"s1", "s2"}, {"q1", "q2"})
    assert shots.name == "the shots of tiny"
    base, _ = of_pack(write_card(tmp_path / "unlisted", shots=True, num_in_training=None))
    assert (base.sha256, base.patients) == (None, None)


def test_a_small_checkpoint_gives_its_shots(tmp_path: Path):
    shots = [{"sha256": "s1", "patient": "q1", "role": "train", "label": "ap"}]
    (tmp_path / "adapted.json").write_text(json.dumps({"shots": shots}))
    (found,) = of_pack(tmp_path)
    assert (found.sha256, found.patients) == ({"s1"}, {"q1"})


def test_copies_that_were_stored_again_are_found_from_the_hashes_of_a_pack_alone(tmp_path: Path):
    films = [film(seed) for seed in range(30)]
    pack = write_card(tmp_path / "pack")
    (pack / "i.txt").write_text("\n".join(sorted(hash_lines(hash_images(films[:20])))) + "\n")
    card = json.loads((pack / "card.json").read_text()) | {"image_hashes_file": "i.txt"}
    (pack / "card.json").write_text(json.dumps(card))
    audit = image_hashes([""] * 12, [resized_jpeg(films[3]), brighter(films[4]), *films[20:]])
    rows = check(cohort_of([str(n) for n in range(12)]), audit, training=of_pack(pack)).tables["leakage"]
    (row,) = [r for r in rows if r["check"] == "near-duplicates of the training files of tiny"]
    assert (row["found"], row["tested"], row["severity"]) == (2, 12, "red")
    assert "rotated were not looked for: only hashes of these images are known" in row["sentence"]
    (pack / "i.txt").write_text("0" * 79 + "\n")
    with pytest.raises(MedclipError, match="list of image hashes cannot be read"):
        of_pack(pack)


@pytest.mark.parametrize("damaged", ["p.txt", "shots.csv", "adapted.json"])
def test_a_pack_whose_lists_cannot_be_read_is_refused(damaged: str, tmp_path: Path):
    pack = write_card(tmp_path / "pack", shots=True)
    (pack / damaged).write_bytes(b"\xff\xfe{")
    with pytest.raises(MedclipError) as refused:
        of_pack(pack)
    assert refused.value.reason is Reason.PACK_INVALID


def test_shards_give_each_split_but_the_test_split_with_their_images(tmp_path: Path):
    rows = []
    for n, split in enumerate(("train", "train", "val", "test")):
        write_image(tmp_path / f"{n}.png", film(n, 96, 96))
        rows.append({"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", "split": split, "caption": "a film"})
    build_shards(write(tmp_path / "t.csv", rows), tmp_path / "shards", Form(key=KEY))
    train, val = of_shards(tmp_path / "shards")
    digests = [hashlib.sha256((tmp_path / f"{n}.png").read_bytes()).hexdigest() for n in range(4)]
    assert (train.sha256, val.sha256) == (set(digests[:2]), {digests[2]})
    assert val.patients == {keyed_hash("patient", "P2", KEY)}
    assert train.images is not None
    assert set(train.images.sha256) == set(digests[:2])
    assert (len(train.images.rows), len(train.images.variants)) == (2, 1)


def test_synthetic_samples_of_training_shards_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = []
    for n, split in enumerate(("train", "train", "train", "val")):
        write_image(tmp_path / f"{n}.png", film(n, 96, 96))
        rows.append({"file": f"{n}.png", "patient": f"P{n}", "modality": "xray", "split": split, "caption": "a film"})
    build_shards(write(tmp_path / "t.csv", rows), tmp_path / "shards", Form(key=KEY))
    table = parquet.read_table(tmp_path / "shards" / SAMPLES)
    kinds = ["paste" if split == "train" and n else None for n, split in enumerate(table["split"].to_pylist())]
    marked = table.append_column(SYNTHETIC, pyarrow.array(kinds, pyarrow.string()))
    monkeypatch.setattr(training_data, "sample_batches", lambda *_: marked.to_batches())
    train, val = of_shards(tmp_path / "shards")
    assert (train.num_samples, train.num_synthetic, val.num_synthetic) == (3, sum(map(bool, kinds)), 0)
    counted = [
        row for row in check(cohort_of(["a"]), training=[train, val]).tables["leakage"] if "synth" in row["check"]
    ]
    assert [(row["found"], row["tested"]) for row in counted] == [(train.num_synthetic, 3)]
    assert "of 3 samples of the split 'train' of the training shards are synthetic" in counted[0]["sentence"]


def test_shards_of_a_test_split_only_were_not_trained_on(tmp_path: Path):
    write_image(tmp_path / "a.png", film(1, 64, 64))
    rows = [{"file": "a.png", "patient": "P", "modality": "xray", "split": "test", "caption": "a film"}]
    build_shards(write(tmp_path / "t.csv", rows), tmp_path / "shards", Form(key=KEY))
    with pytest.raises(MedclipError) as refused:
        of_shards(tmp_path / "shards")
    assert refused.value.reason is Reason.NOTHING_TO_DO


def test_a_table_gives_hashes_patients_and_files_without_its_test_rows(tmp_path: Path):
    file = write_image(tmp_path / "a.png", film(1, 64, 64))
    rows = [
        {"file": "a.png", "sha256": "AA", "patient": "P1", "split": "train"},
        {"file": "", "sha256": "", "patient": "P2", "split": ""},
        {"file": "", "sha256": "bb", "patient": "P3", "split": "Test"},
    ]
    table = write(tmp_path / "t.csv", rows)
    found = of_table(table, modality=Modality.XRAY, settings=Settings(workers=1))
    assert found.sha256 == {"aa", hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (found.patients, found.hashed) == ({"P1", "P2"}, False)
    assert found.images is not None
    assert found.images.rows.tolist() == [0]
    assert of_table(table).images is None
    frame = pyarrow.table({"mrn": ["7", "8"]})
    assert of_table(frame, patient_from="mrn").patients == {"7", "8"}
    assert of_table(frame, patient_from="mrn").sha256 is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"name": ["a"]}, Reason.TABLE_INVALID),
        ({"file": ["a.png"]}, Reason.TABLE_INVALID),
        ({"sha256": ["aa"], "split": ["test"]}, Reason.NOTHING_TO_DO),
    ],
)
def test_a_table_that_tells_nothing_is_refused(columns: dict[str, list[str]], reason: Reason):
    with pytest.raises(MedclipError) as refused:
        of_table(pyarrow.table(columns))
    assert refused.value.reason is reason
