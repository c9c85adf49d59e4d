"""Synthetic samples of the tail: marked, counted, never in a split of evaluation, the same bytes each time."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.tables.write import parquet_bytes
from medclip.pairs.pile import read_pile
from medclip.pairs.synthesis import paste
from medclip.pairs.synthesis import synthesize as module
from medclip.pairs.synthesis.change import ChangeSettings, swapped
from medclip.pairs.synthesis.generators import Source, Synthetic
from medclip.pairs.synthesis.paste import PasteSettings, record_with
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
from tests.kits.audit_tables import audit_table
from tests.kits.image_piles import context_of, pile_of
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


def source(key: str, patient: str, text: str, image: NDArray[np.uint8], **more: Any) -> Source:
    record = CaptionRecord(Modality.XRAY, texts=(text,), **more)
    return Source(key, patient, "", "made here", record, lambda: image)


def pasted(folder: Path, into: Source, lesion: int = 130, **settings: Any) -> Synthetic | str:
    """Paste a square of a donor whose other pixels are 120."""
    image, mask = np.full((40, 40, 3), 120, np.uint8), np.zeros((40, 40), np.uint8)
    image[10:20, 10:20], mask[10:20, 10:20] = lesion, 255
    Image.fromarray(mask).save(folder / "m.png")
    write(folder / "m.csv", [{"key": "donor", "mask": "m.png"}])
    donor = source("donor", "one", "Cardiomegaly.", image)
    asked = PasteSettings(masks="m.csv", sentence="A pneumothorax is seen.", **settings)
    return paste.prepare(asked, [donor, into], folder)(donor, np.random.default_rng(0))


GREY = np.full((40, 40, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("patient", "text"),
    [("one", "Cardiomegaly."), ("two", "No acute abnormality."), ("two", "A large pneumothorax.")],
)
def test_no_lesion_goes_to_its_own_patient_or_where_the_words_leave_no_room(
    patient: str, text: str, tmp_path: Path
) -> None:
    assert pasted(tmp_path, source("into", patient, text, GREY)) == "no_image_takes_it"


def test_what_was_said_of_the_image_without_the_lesion_is_left_out(tmp_path: Path) -> None:
    words = ("No pneumothorax.",)
    before: dict[str, Any] = dict.fromkeys(("negatives", "long_captions", "tags", "absent_tags"), words)
    before |= {"labels": {"findings": {"pneumothorax": 0}}, "report": "Emphysema."}
    before["candidates"] = (WeighedCaption("cleaned", words[0], 1.0),)
    made = pasted(tmp_path, source("into", "two", "Emphysema.", GREY, **before))
    assert isinstance(made, Synthetic)
    assert made.record == CaptionRecord(Modality.XRAY, texts=("Emphysema. A pneumothorax is seen.",))


def test_a_lesion_that_turns_black_or_is_too_large_is_not_pasted(tmp_path: Path) -> None:
    dark = source("into", "two", "Emphysema.", np.full_like(GREY, 20))
    assert pasted(tmp_path, dark, lesion=60) == "no_image_takes_it"
    assert pasted(tmp_path, dark, most=0.06) == "lesion_too_large"
    assert isinstance(pasted(tmp_path, dark), Synthetic)


def test_the_rarest_are_made_first_and_no_more_than_the_share(shards: Path, tmp_path: Path) -> None:
    result = synthesize(Synthesis(shards, tmp_path / "out", steps(n_aug=1.0, share=0.1)))
    num_real = result.num_pairs - result.num_left_out
    assert result.num_synthetic == num_real // 9 < result.num_tail
    rows = pq.read_table(tmp_path / "out" / "synthesized.parquet").to_pylist()
    made, others = ([r["rarity"] for r in rows if r["reason"] == reason] for reason in ("", "enough_made"))
    assert min(made) >= max(others)
    assert len(made) == result.num_synthetic


def test_patients_of_the_tail_all_stay_where_others_are_thinned() -> None:
    pile = pile_of(patient=["a", "a", "b", "", ""])
    is_tail = np.array([False, True, False, True, False])
    assert module._thinned(pile, is_tail, context_of(), 0.0).tolist() == [True, True, False, True, False]


def test_of_a_synthetic_sample_nothing_is_made(shards: Path, tmp_path: Path) -> None:
    once = synthesize(Synthesis(shards, tmp_path / "once", steps()))
    synthesize(Synthesis(once.shards, tmp_path / "again", steps(n_aug=1.0, share=0.5)))
    made = read_pile(once.shards, split="train").table
    keys = {k for k, is_made in zip(made["key"].to_pylist(), made["synthetic"].to_pylist(), strict=True) if is_made}
    rows = pq.read_table(tmp_path / "again" / "synthesized.parquet").to_pylist()
    assert {row["reason"] for row in rows if row["key"] in keys} == {"is_synthetic"}


def test_a_result_that_looks_like_an_image_of_evaluation_is_not_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([{}, {0: "evaluation_image"}])
    monkeypatch.setattr(module, "evaluation_rows", lambda *_: next(answers))
    result = synthesize(Synthesis(shards, tmp_path / "out", steps()))
    assert result.counts_by_reason["result_evaluation_image"] == 1
    rows = pq.read_table(tmp_path / "out" / "synthesized.parquet").to_pylist()
    assert all(bool(row["kind"]) != bool(row["reason"]) for row in rows)
    written = read_pile(result.shards, split="train").table["synthetic"].to_pylist()
    assert sum(written) == result.num_synthetic == sum(bool(row["synthetic"]) for row in rows)


def test_nothing_is_made_of_pairs_that_the_selection_dropped(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pile = read_pile(shards, split="train")
    kept = np.arange(len(pile)) % 2 == 0
    keys = pile.cells("key")
    monkeypatch.setattr(
        module, "read_selection", lambda _: SimpleNamespace(table=pile.table, kept_N=kept, digest="one")
    )
    usable: list[str] = []

    def prepare(settings: object, sources: list[Source], folder: Path):
        usable.extend(one.key for one in sources)
        return lambda source, rng: "none"

    monkeypatch.setattr("medclip.pairs.synthesis.change.prepare", prepare)
    synthesize(Synthesis(shards, tmp_path / "out", steps(selection="any.parquet")))
    assert usable == keys[::2]


def test_a_sample_made_of_one_half_of_an_edit_pair_is_no_half_of_it(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for n, text in enumerate(["Pneumonia."] * 20 + ["Emphysema."] * 2):
        Image.fromarray(rng.integers(100, 150, (64, 64), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        pair = "a pair" if n >= 20 else ""
        row = {"file": f"{n}.png", "patient": f"p{n}", "modality": "xray", "caption": text, "split": "train"}
        rows.append(row | {"edit_pairs": pair})
    built = build_shards(
        write(tmp_path / "t.csv", rows), tmp_path / "shards", Form(key=KEY), settings=Settings(workers=1)
    )
    result = synthesize(Synthesis(built.folder, tmp_path / "out", steps(n_aug=0.5)))
    assert result.num_synthetic == 2
    with ShardReader(result.shards, "train") as reader:
        records = [reader.record(n) for n in range(len(reader))]
        assert [bool(m.get("synthetic")) for r, m in records if r.edit_pairs] == [False, False]
        assert reader.columns.pair_N is not None
        assert np.flatnonzero(reader.columns.pair_N).tolist() == [n for n, (r, _) in enumerate(records) if r.edit_pairs]


def test_no_article_stands_behind_no_whichever_noun_is_drawn() -> None:
    texts = {swapped("No cardiomegaly.", "xray", np.random.default_rng(seed))[0] for seed in range(20)}
    assert len(texts) > 1
    assert not any(text.startswith(("No a ", "No an ")) for text in texts)


def test_a_split_of_evaluation_is_refused_however_it_is_written(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="one of evaluation"):
        synthesize(Synthesis(shards, tmp_path / "no", steps(split="TEST")))


def test_an_audit_counts_the_synthetic_samples_of_the_shards_that_the_command_wrote(
    shards: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "synthesize.yaml"
    asked.write_text("tail: {views: [object], coverage: 0.8}\n")
    assert main(["pairs", "synthesize", str(shards), "--steps", str(asked), "--out", str(tmp_path / "out")]) == 0
    written = pq.read_table(tmp_path / "out" / "synthesized.parquet").column("kind").to_pylist()
    num_synthetic, folder = sum(map(bool, written)), tmp_path / "out" / "shards"
    audit_table(40).to_csv(tmp_path / "scores.csv", index=False)
    few = ["--by", "sex", "--num-resamples", "100", "--num-permutations", "100"]
    audit = ["audit", str(tmp_path / "scores.csv"), "--training", str(folder), "--out", str(tmp_path / "audit")]
    assert main([*audit, *few]) == 0
    with (tmp_path / "audit" / "leakage.csv").open() as table:
        (row,) = [row for row in csv.DictReader(table) if row["check"].startswith("synthetic samples")]
    num_train = len(read_pile(folder, split="train"))
    assert (int(row["found"]), int(row["tested"])) == (num_synthetic, num_train)
    assert 0 < num_synthetic < num_train
