"""Labels are divided by patient so that every class is on every side, or refused with class and column."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medclip.adaptation.data.table import AdaptTable, read_adapt_table
from medclip.adaptation.finetune.labelled_shards import SPLITS, divided
from medclip.errors import MedclipError, Reason


def table(folder: Path, labels: dict[str, list[str]], *, split: list[str] | None = None) -> AdaptTable:
    """Read a table of one file for each patient."""
    count = len(next(iter(labels.values())))
    frame = pd.DataFrame({"file": [f"{i}.png" for i in range(count)], "patient": range(count), **labels})
    if split:
        frame["split"] = split
    frame.to_csv(folder / "labels.csv", index=False)
    return read_adapt_table(folder / "labels.csv", tuple(labels), modality="xray", key=b"k" * 32)


def sides(understood: AdaptTable, **shares: float) -> dict[str, list[int]]:
    shares = {"test_share": 0.2, "val_share": 0.1} | shares
    labelled = divided(understood, ("kind",), seed=0, **shares)
    return {
        side: [u.number for u, own in zip(understood.units, labelled.side, strict=True) if own == side]
        for side in SPLITS
    }


def test_rare_classes_are_on_every_side(tmp_path: Path) -> None:
    understood = table(tmp_path, {"kind": ["common"] * 90 + ["rare"] * 5})
    found = sides(understood)
    assert {side: sum(n > 90 for n in rows) for side, rows in found.items()} == {"train": 3, "val": 1, "test": 1}
    assert len(found["test"]) == 19
    assert sum(map(len, found.values())) == 95


def test_shares_are_of_all_patients(tmp_path: Path) -> None:
    found = sides(table(tmp_path, {"kind": ["a", "b"] * 200}), test_share=0.5, val_share=0.25)
    assert {side: len(rows) for side, rows in found.items()} == {"train": 100, "val": 100, "test": 200}


def test_a_patient_is_on_one_side_with_all_files(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"file": [f"{i}.png" for i in range(60)], "patient": [i // 3 for i in range(60)], "kind": ["a", "b"] * 30}
    )
    frame.to_csv(tmp_path / "labels.csv", index=False)
    understood = read_adapt_table(tmp_path / "labels.csv", ("kind",), modality="xray", key=b"k" * 32)
    labelled = divided(understood, ("kind",), seed=0, test_share=0.2, val_share=0.2)
    whose: dict[str, set[str]] = {}
    for unit, side in zip(understood.units, labelled.side, strict=True):
        whose.setdefault(unit.patient, set()).add(side)
    assert {len(own) for own in whose.values()} == {1}


def test_the_tables_own_split_stands_and_validation_is_taken_from_what_is_learned(tmp_path: Path) -> None:
    split = ["test" if i < 10 else "" for i in range(60)]
    found = sides(table(tmp_path, {"kind": ["a", "b"] * 30}, split=split))
    assert found["test"] == list(range(1, 11))
    assert len(found["val"]) >= 4
    assert not set(found["val"]) & set(found["test"])
    split = [("train", "val", "test")[i % 3] for i in range(60)]
    found = sides(table(tmp_path, {"kind": ["a", "b"] * 30}, split=split))
    assert [len(found[side]) for side in SPLITS] == [20, 20, 20]


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (
            ["a"] * 20 + ["b"] * 2,
            "column 'kind': no patient of the class 'kind_b' is in the split val; the table has 2",
        ),
        (["a"] * 20 + ["b"], "the class 'kind_b' is in the split"),
    ],
)
def test_a_class_with_too_few_patients_is_refused_by_name_and_column(
    kinds: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(MedclipError, match=sentence) as refused:
        sides(table(tmp_path, {"kind": kinds}))
    assert refused.value.reason is Reason.WRONG_USE


def test_a_class_that_the_tables_split_leaves_out_of_training_is_refused(tmp_path: Path) -> None:
    split = ["test" if kind == "b" else "train" for kind in "aaaabbbbaaaa"]
    with pytest.raises(MedclipError, match="no patient of the class 'kind_b' is in the split train"):
        sides(table(tmp_path, {"kind": list("aaaabbbbaaaa")}, split=split))


def test_labels_all_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="the column 'kind' has only the class 'a'"):
        table(tmp_path, {"kind": ["a"] * 12})
    with pytest.raises(MedclipError, match="only one answer for mass"):
        table(tmp_path, {"mass": ["0"] * 12})


def test_a_rare_finding_is_learned_and_named_where_it_cannot_be_tested(tmp_path: Path) -> None:
    understood = table(
        tmp_path, {"mass": ["0", "1"] * 20, "hernia": ["1"] + ["0"] * 39}, split=["train"] * 30 + ["test"] * 10
    )
    labelled = divided(understood, ("mass", "hernia"), seed=0, test_share=0.2, val_share=0.2)
    assert any("split test" in note and "hernia" in note for note in labelled.notes)
    split = ["test"] + ["train"] * 29 + ["test"] * 10
    understood = table(tmp_path, {"mass": ["0", "1"] * 20, "hernia": ["1"] + ["0"] * 39}, split=split)
    with pytest.raises(MedclipError, match="column 'hernia': no patient with 'hernia' is in the split train"):
        divided(understood, ("mass", "hernia"), seed=0, test_share=0.2, val_share=0.2)


@pytest.mark.parametrize(("test", "val"), [(0.0, 0.1), (0.2, 0.0), (0.6, 0.4), (1.2, 0.1)])
def test_shares_that_leave_a_side_empty_are_refused(test: float, val: float, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="no parts of one whole"):
        sides(table(tmp_path, {"kind": ["a", "b"] * 10}), test_share=test, val_share=val)


def test_the_digest_knows_labels_and_sides_and_no_place(tmp_path: Path) -> None:
    def digest(kinds: list[str], seed: int = 0) -> str:
        return divided(table(tmp_path, {"kind": kinds}), ("kind",), seed=seed, test_share=0.2, val_share=0.1).digest()

    kinds = ["a", "b"] * 20
    assert digest(kinds) == digest(kinds)
    assert digest(kinds) != digest(["b", "a"] * 20)
    assert digest(kinds) != digest(kinds, seed=1)
