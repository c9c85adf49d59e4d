"""Choose how the breasts' answers become that of an examination, on validation women, and measure it on test women.

Usage: python pipelines/mini/exam_pooling.py DATA TABLE.csv OUT.json [--model PACK] [--validation] [--write]

DATA is the folder of shared sets, or what `medclip embed` made of the mammograms of TABLE.csv, whose studies are women.
An examination is malignant if an image of it is, a breast if one of its images is. Each rule of
`medclip.scoring.pooling.POOLINGS` is measured by the area under the ROC curve of "malignant" among the validation
women; the best one is chosen, of equal ones the first in the table. With --validation nothing is computed of test
women. Intervals resample women, and differences are paired over the same resamples. With --write the choice goes into
the pack's card.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from table import SHARES

import medclip
from medclip.embeddings.open_embeddings import is_embeddings
from medclip.models.packs.pack import find_pack, pack_card, update_pack
from medclip.scoring.pooling import LEARNED, MEAN, POOLINGS, fit_sharpness, pool_breasts
from medclip.shards.writing.splits import split_of
from medclip.statistics.estimate import NUM_RESAMPLES
from medclip.statistics.metrics.classification import HeldOut, mean_over_runs, numbered, shares_of
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.load import load_task
from medclip.wording import count

TASK = "mammography_malignancy"
SOURCE, TITLE = "cdd_cesm", "CDD-CESM"


class Women:
    """Answers and truths of the women of a split."""

    def __init__(self, rows: list[dict[str, Any]], truths: dict[str, dict[str, int]], classes: list[str]) -> None:
        """Sort the rows of exam_scores of some women: `truths` has by woman those of her breasts, "R" and "L"."""
        self.exams: dict[str, np.ndarray] = {}
        breasts: dict[tuple[str, str], np.ndarray] = {}
        for row in rows:
            c = classes.index(row["class"])
            if row["level"] == "exam":
                self.exams.setdefault(row["patient_name"], np.zeros(len(classes)))[c] = row["probability_by_mean"]
            elif row["level"] == "breast":
                key = row["patient_name"], row["side"]
                breasts.setdefault(key, np.zeros(len(classes)))[c] = row["probability"]
        self.names = sorted(self.exams)
        of = defaultdict(list)
        for (woman, _), p_C in sorted(breasts.items()):
            of[woman].append(p_C)
        self.breasts = [np.stack(of[name]) for name in self.names]
        self.is_malignant = np.array([max(truths[name].values()) for name in self.names])
        keys = sorted(breasts)
        self.by_breast = np.array([breasts[key][-1] for key in keys])
        self.breast_truth = np.array([truths[woman][side] for woman, side in keys])
        self.breast_woman = [woman for woman, _ in keys]

    def pooled(self, rule: str, sharpness: float) -> np.ndarray:
        """Return the probability of "malignant" of each examination."""
        if rule == MEAN:
            return np.array([self.exams[name][-1] for name in self.names])
        task = load_task(TASK)
        pooled = (pool_breasts(p_BC, task, rule, sharpness) if len(p_BC) > 1 else p_BC[0] for p_BC in self.breasts)
        return np.array([p_C[-1] for p_C in pooled])


def areas(women: Women, sharpness: float) -> dict[str, Any]:
    """Return the area of each rule and of the breasts, with paired differences from the mean and from the breasts."""
    ids = numbered([*women.names, *women.breast_woman])
    of_exams, of_breasts = ids[: len(women.names)], ids[len(women.names) :]
    weights = draw_weights(int(ids.max()) + 1, NUM_RESAMPLES, seed=0)

    def area(truth: np.ndarray, scores: np.ndarray, whose: np.ndarray) -> Any:
        scores_NC = np.stack([1 - scores, scores], axis=1)
        return mean_over_runs(shares_of(scores_NC[None], HeldOut(truth, whose, 2), weights, ["auroc"])["auroc"])

    parts = {rule: area(women.is_malignant, women.pooled(rule, sharpness), of_exams) for rule in POOLINGS}
    parts["breasts"] = area(women.breast_truth, women.by_breast, of_breasts)
    result: dict[str, Any] = {}
    for name, part in parts.items():
        e = interval_of(part)
        result[name] = {"value": e.value, "low": e.low, "high": e.high}
        for rival in (MEAN, "breasts"):
            if name != rival:
                apart = difference(parts[rival], part)
                result[name][f"less {rival}"] = [apart.value, apart.low, apart.high]
    return result


def embedded(data: Path, table: Path, model: str, out: Path) -> Path:
    """Return embeddings of the women's images: `data` itself, or a folder beside `out`."""
    if is_embeddings(data):
        return data
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == SOURCE and row["adapter"] != "generic"]
    columns, stated = (
        ("file", "study", "patient", "modality", "laterality", "view", "view_kind"),
        out.with_suffix(".csv"),
    )
    with stated.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | {"study": row["patient"]} for row in rows)
    folder = out.with_suffix("")
    medclip.embed(sorted({Path(row["file"]) for row in rows}), table=stated, model=model, out=folder)
    return folder


def women_of(embeddings: Path, table: Path, model: str) -> dict[str, Women]:
    """Score the examinations, and return the women by split."""
    with table.open(encoding="utf-8") as file:
        stated = [row for row in csv.DictReader(file) if row["source"] == SOURCE]
    column, classes = f"label:{TASK}", [c.name for c in load_task(TASK).classes]
    run = medclip.score(embeddings, model=model, task=[TASK], exam=True, pool=MEAN)
    woman_of_file = {row["file"]: row["patient"] for row in stated}
    studies = {}
    for row in run.files.to_pylist():
        name = next((woman for file, woman in woman_of_file.items() if file.endswith(row["path"])), None)
        if name is not None:
            studies[row["study"]] = name
    truths: dict[str, dict[str, int]] = defaultdict(dict)
    for row in stated:
        side = row["laterality"][:1].upper()
        truths[row["patient"]][side] = max(truths[row["patient"]].get(side, 0), int(row[column] == classes[-1]))
    assert run.exam_scores is not None
    rows = [
        row | {"patient_name": studies[row["study"]]} for row in run.exam_scores.to_pylist() if row["study"] in studies
    ]
    parts = defaultdict(list)
    for row in rows:
        parts[split_of(row["patient_name"], SHARES, 0)].append(row)
    return {split: Women(of, truths, classes) for split, of in parts.items()}


def main() -> None:
    """Choose, measure, write."""
    parser = argparse.ArgumentParser()
    for name in ("data", "table", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--model", default="medclip-mini")
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    women = women_of(embedded(options.data, options.table, options.model, options.out), options.table, options.model)
    val = women["val"]
    sharpness = fit_sharpness(val.breasts, val.is_malignant > 0, load_task(TASK))
    of_val = areas(val, sharpness)
    rule = max(POOLINGS, key=lambda name: of_val[name]["value"])
    chosen_on = f"{count(len(val.names), 'validation woman', 'validation women')} of {TITLE}"
    result: dict[str, Any] = {"rule": rule, "sharpness": sharpness, "chosen_on": chosen_on, "validation": of_val}
    result["num_women"] = {split: [len(w.names), int(w.is_malignant.sum())] for split, w in women.items()}
    if not options.validation:
        result["test"] = areas(women["test"], sharpness)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    json.dump(result, sys.stdout, indent=1)
    if options.write and not options.validation:
        card = pack_card(options.model)
        figures = {
            name: {k: round(f[k], 4) for k in ("value", "low", "high")} | {"num_patients": len(women["test"].names)}
            for name, f in result["test"].items()
        }
        pooling = {"rule": rule, "chosen_on": chosen_on, "figures": figures}
        pooling |= {"sharpness": sharpness} if rule == LEARNED else {}
        fields = card.model_dump()
        fields["tasks"][TASK]["pooling"] = pooling
        update_pack(find_pack(options.model), card=type(card).model_validate(fields))


if __name__ == "__main__":
    main()
