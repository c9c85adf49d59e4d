"""An audit reads each of its tables once."""

from __future__ import annotations

import builtins
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medclip.auditing.input.options import ReadOptions
from medclip.auditing.options import ImageChecks, MeasureOptions, Shortcuts, Thresholds
from medclip.auditing.run import open_tables, run_audit
from tests.kits.audit_input import write_scored
from tests.kits.audit_tables import audit_table

QUICK = MeasureOptions(num_resamples=100, permutations=100)
SCORES = ["image", "flu_score"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Names of the files that were opened, with how often."""
    counts: Counter[str] = Counter()
    original = io.open

    def counting(file, *args, **more):
        counts[Path(file).name if isinstance(file, str | Path) else "?"] += 1
        return original(file, *args, **more)

    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(builtins, "open", counting)
    return counts


def test_an_audit_with_every_question_opens_each_table_once(tmp_path: Path, opened: Counter[str]):
    table = audit_table(120, splits=True)
    table.drop(columns="flu_score").to_csv(tmp_path / "labels.csv", index=False)
    table[SCORES].to_csv(tmp_path / "scores.csv", index=False)
    table[SCORES].assign(flu_score=1 - table.flu_score).to_parquet(tmp_path / "other.parquet")
    table[SCORES].to_csv(tmp_path / "masked.tsv", index=False, sep="\t")
    pd.DataFrame({"patient": ["Q1", "Q2"]}).to_csv(tmp_path / "training.csv", index=False)
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(len(table), 4)), columns=list("abcd"))
    pd.concat([table[["image"]], vectors], axis=1).to_csv(tmp_path / "vectors.csv", index=False)
    opened.clear()
    result = run_audit(
        tmp_path / "scores.csv",
        tmp_path / "labels.csv",
        by=["sex"],
        compare={"other": str(tmp_path / "other.parquet")},
        reading=ReadOptions(where={"split": "test"}),
        options=MeasureOptions(
            num_resamples=100,
            permutations=100,
            thresholds=Thresholds(choose_where={"split": "val"}),
            shortcuts=Shortcuts(devices=("tube",), masked=tmp_path / "masked.tsv", reweight=("age",)),
            image_checks=ImageChecks(embeddings=tmp_path / "vectors.csv", training=(tmp_path / "training.csv",)),
        ),
    ).result
    assert result.embeddings
    names = ("labels.csv", "scores.csv", "other.parquet", "masked.tsv", "training.csv", "vectors.csv")
    assert {name: opened[name] for name in names} == dict.fromkeys(names, 1)


def test_both_tables_of_medclip_score_are_opened_once(tmp_path: Path, opened: Counter[str]):
    names = [f"p{i}.png" for i in range(40)]
    scores = {f"s{i}": {"t:flu": float(s)} for i, s in enumerate(np.random.default_rng(0).random(40))}
    folder = write_scored(tmp_path / "out", {f"s{i}": [n] for i, n in enumerate(names)}, scores, "multilabel")
    labels = pd.DataFrame({"file": names, "patient": names, "sex": list("FM") * 20, "flu": [0, 0, 1, 1] * 10})
    opened.clear()
    run_audit(folder, labels, by=["sex"], compare={"again": folder}, options=QUICK)
    assert (opened["scores.parquet"], opened["files.parquet"]) == (1, 1)


def test_a_file_that_is_named_twice_is_one_table(tmp_path: Path):
    audit_table(10).to_csv(tmp_path / "all.csv", index=False)
    frame = audit_table(10)
    scores, labels, _ = open_tables(
        {"a": tmp_path / "all.csv", "b": frame}, str(tmp_path / "all.csv"), ReadOptions(), QUICK
    )
    assert labels is scores["a"].table
    again, _, _ = open_tables({"b": frame}, frame, ReadOptions(), QUICK)
    assert again["b"].table is not labels
