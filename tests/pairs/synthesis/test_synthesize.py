"""Synthetic samples of the tail: marked, counted, never in a split of evaluation, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.files.tables.write import parquet_bytes
from medclip.pairs.pile import read_pile
from medclip.pairs.synthesis import synthesize as module
from medclip.pairs.synthesis.change import ChangeSettings, swapped
from medclip.pairs.synthesis.generators import Source
from medclip.pairs.synthesis.paste import blended, record_with
from medclip.pairs.synthesis.synthesize import Synthesis, synthesize
from medclip.pairs.synthesis.synthesize_steps import read_steps
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.shards.folder import INDEX, SAMPLES
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.text.captions.candidates import WeighedCaption
from medclip.text.captions.record import CaptionRecord
from tests.kits.shards import KEY, write

FINDINGS = ("Pneumonia.", "Cardiomegaly.", "Atelectasis.", "Emphysema.")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    rows, masks = [], []
    num_of = {0: 24, 1: 12, 2: 4, 3: 2}  # a Zipf sample
    for i, text in enumerate(t for n, t in enumerate(FINDINGS) for _ in range(num_of[n])):
        Image.fromarray(rng.integers(100, 150, (64, 64), dtype=np.uint8)).save(folder / f"{i}.png")
        mask = np.zeros((64, 64), np.uint8)
        y, x = 6 + 10 * (i % 5), 6 + 10 * (i // 5 % 5)
        mask[y : y + 8, x : x + 8] = 255
        Image.fromarray(mask).save(folder / f"m{i}.png")
        split = "test" if i % 12 == 0 else "train"
        about = {"patient": f"p{i}", "modality": "xray", "caption": text, "source": "made here", "split": split}
        rows.append({"file": f"{i}.png", **about})
        masks.append({"file": f"{i}.png", "mask": f"m{i}.png"})
    write(folder / "masks.csv", masks)
    build_shards(write(folder / "t.csv", rows), folder / "shards", Form(key=KEY), settings=Settings(workers=1))
    return folder / "shards"


@pytest.fixture(autouse=True)
def _no_bending(monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI takes ten seconds to import: that it is called is tested once."""

    def darker(image, settings, rng):
        return (image * 0.5 + rng.integers(0, 9, image.shape)).astype(np.uint8), {"gamma": 1.0}

    monkeypatch.setattr("medclip.pairs.synthesis.change.changed_image", darker)


def steps(**more: object):
    return read_steps({"tail": {"views": ["object"], "coverage": 0.8}, **more})


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_samples_of_the_tail_are_marked_and_lie_in_no_split_of_evaluation(shards: Path, tmp_path: Path) -> None:
    result = synthesize(Synthesis(shards, tmp_path / "out", steps()))
    assert result.num_synthetic > 0
    assert result.share <= 0.2
    assert result.gini_after < result.gini_before
    assert check_shards(result.shards).problems == ()
    assert not any(read_pile(result.shards, split="test").table.column("synthetic").to_pylist())
    train = read_pile(result.shards, split="train").table
    assert sum(train.column("synthetic").to_pylist()) == result.num_synthetic
    with ShardReader(result.shards, "train") as reader:
        metas = [m for _, m in map(reader.record, range(len(reader))) if m.get("synthetic")]
    assert all(
        m["synthesis"]["kind"] == "change" and m["synthesis"]["source"] in train["key"].to_pylist() for m in metas
    )
    rows = pq.read_table(tmp_path / "out" / "synthesized.parquet").to_pylist()
    assert len(rows) == result.num_tail
    assert all(bool(r["kind"]) != bool(r["reason"]) for r in rows)


def test_a_run_that_was_killed_ends_in_the_same_bytes(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesize(Synthesis(shards, tmp_path / "one", steps()))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_file", die)
    with pytest.raises(KeyboardInterrupt):
        synthesize(Synthesis(shards, tmp_path / "two", steps()))
    monkeypatch.undo()
    again = pytest.MonkeyPatch()
    again.setattr(
        "medclip.pairs.synthesis.change.changed_image",
        lambda image, settings, rng: ((image * 0.5 + rng.integers(0, 9, image.shape)).astype(np.uint8), {"gamma": 1.0}),
    )
    synthesize(Synthesis(shards, tmp_path / "two", steps()))
    again.undo()
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert {k: v for k, v in one.items() if k != "report.json"} == {k: v for k, v in two.items() if k != "report.json"}


def test_a_split_of_evaluation_is_refused_and_a_planted_sample_is_caught(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        synthesize(Synthesis(shards, tmp_path / "no", steps(split="test")))
    assert caught.value.reason is Reason.WRONG_USE
    result = synthesize(Synthesis(shards, tmp_path / "out", steps()))
    table = pq.read_table(result.shards / SAMPLES)
    planted = ["change" if split == "test" else None for split in table["split"].to_pylist()]
    table = table.set_column(table.column_names.index("synthetic"), "synthetic", [planted])
    content = parquet_bytes(table)
    (result.shards / SAMPLES).write_bytes(content)
    index = json.loads((result.shards / INDEX).read_text())
    index["tables"][SAMPLES] = hashlib.sha256(content).hexdigest()
    (result.shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(MedclipError, match="synthetic"):
        ShardReader(result.shards, "test")
    assert any("Synthetic" in problem for problem in check_shards(result.shards).problems)


def test_what_is_evaluated_elsewhere_is_no_source(shards: Path, tmp_path: Path) -> None:
    result = synthesize(Synthesis(shards, tmp_path / "out", steps(), against=(str(shards),)))
    assert result.num_synthetic == 0
    assert set(result.counts_by_reason) == {"evaluation_image"}


def test_a_lesion_is_pasted_into_another_patient_with_its_sentence(shards: Path, tmp_path: Path) -> None:
    masks = str(shards.parent / "masks.csv")
    paste = {"masks": masks, "sentence": "A pneumothorax is seen."}
    result = synthesize(Synthesis(shards, tmp_path / "out", steps(generators=[{"paste": paste}])))
    assert result.counts_by_kind["paste"] == result.num_synthetic > 0
    rows = [r for r in pq.read_table(tmp_path / "out" / "synthesized.parquet").to_pylist() if r["kind"]]
    assert all(r["into"] != r["key"] and r["text"].endswith(". A pneumothorax is seen.") for r in rows)
    with pytest.raises(MedclipError, match="left"):
        synthesize(
            Synthesis(shards, tmp_path / "side", steps(generators=[{"paste": {**paste, "sentence": "A left mass."}}]))
        )


def test_a_pasted_lesion_leaves_no_words_of_the_image_without_it() -> None:
    record = CaptionRecord(
        modality=Modality.XRAY,
        texts=("Clear lungs.",),
        report="Clear lungs.",
        candidates=(WeighedCaption("cleaned", "Clear lungs.", 1.0),),
        negatives=("A mass.",),
        edit_pairs=("a~mirror",),
    )
    source = Source("a", "p", "0", "", record, lambda: np.zeros((8, 8, 3), np.uint8))
    pasted = record_with(source, "A mass is seen.")
    assert pasted == CaptionRecord(modality=Modality.XRAY, texts=("Clear lungs. A mass is seen.",))


def test_a_blend_keeps_the_gradients_of_the_donor_and_the_values_around() -> None:
    target = np.full((20, 20, 3), 100, np.uint8)
    donor = np.full((20, 20, 3), 30, np.uint8)
    donor[9:11, 9:11] = 80
    mask = np.zeros((20, 20), bool)
    mask[6:14, 6:14] = True
    pasted = blended(donor, target, mask)
    assert pasted[9, 9].tolist() == [150, 150, 150], "the donor's contrast of 50 stands on the values around"
    assert (pasted[:3] == 100).all()


def test_a_lesion_never_lies_on_another_one(shards: Path, tmp_path: Path) -> None:
    masks = write(
        tmp_path / "m.csv", [{"file": f"{shards.parent}/{i}.png", "mask": f"{shards.parent}/m0.png"} for i in range(42)]
    )
    paste = {"masks": str(masks), "sentence": "A pneumothorax is seen."}
    result = synthesize(Synthesis(shards, tmp_path / "out", steps(generators=[{"paste": paste}])))
    assert result.num_synthetic == 0
    assert set(result.counts_by_reason) == {"no_image_takes_it"}


def test_a_noun_that_stands_alone_becomes_another_and_a_side_stays() -> None:
    rng = np.random.default_rng(0)
    text, swaps = swapped("An enlarged heart. Left pleural effusion.", "xray", rng)
    assert "Left pleural effusion." in text
    assert len(swaps) == 1
    assert "enlarged heart" not in text
    text, _ = swapped("No cardiomegaly.", "xray", rng)
    assert text.startswith("No ")
    assert " an " not in text.lower(), "an article does not stand behind no"
    assert ChangeSettings().synonyms
