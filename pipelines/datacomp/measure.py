"""Select, train and measure every arm with every seed: one JSON file for each run, then the tables.

Usage: python pipelines/datacomp/measure.py RUN [--scale smoke|shared|xs|s|m] [--arms NAME...] [--seeds N...]

RUN holds the shards (run.sh builds them). Killed and called again, it goes on: selections, packs and results are kept.
What could be chosen by looking at results stands in measured_plan.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import result_tables
import yaml
from measured_plan import (
    ARMS,
    BASE,
    HARD_NEGATIVES,
    LOSS_ARMS,
    MEASURED,
    RETRIEVED,
    REWRITE,
    SCALES,
    SEEDS,
    TASKS,
    Arm,
)
from measured_split import Split, load_split
from measuring import read_rows, trained, write_rows
from numpy.typing import NDArray
from pile_table import FIGURES

import medclip
from medclip.adaptation.data.class_text import class_text
from medclip.evaluation.label_retrieval import ranks_of_right
from medclip.evaluation.word_control import other_wordings
from medclip.files.output import write_file
from medclip.models.packs.pack import Model, load_model
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.shards.reading.samples import ShardReader
from medclip.shards.selection import read_selection
from medclip.statistics.metrics.classification import numbered
from medclip.text.vocabulary.load import load_task

HERE = Path(__file__).parent
DECIMALS = 5
EVERY_ARM = {**ARMS, **LOSS_ARMS}


@dataclass(frozen=True)
class Study:
    """A run folder and a scale."""

    run: Path
    scale: str

    @property
    def shards(self) -> Path:
        """The pile."""
        return self.run / "shards"

    def selection(self, name: str, arm: Arm, seed: int) -> Path | None:
        """Return the selection of an arm, made where it was not; None for an arm that keeps everything."""
        if not arm.steps:
            return None
        drawn = seed if arm.drawn else 0
        out = self.run / "selections" / f"{name}_{drawn}.parquet"
        if not out.is_file():
            steps = [dict(step) for step in arm.steps]
            for step in steps:
                if "concept" in step:
                    step["concept"] = step["concept"] | {"labels": str(self._kinds().resolve())}
            medclip.pairs.select(self.shards, steps={"seed": drawn, "steps": steps}, out=out, split="train")
        return out

    def rewritten(self) -> Path:
        """Return the shards with rewritten texts."""
        out, steps = self.run / "rewritten", self.run / "rewrite.yaml"
        if not (out / "shards" / "index.json").is_file():
            write_file(steps, yaml.safe_dump(dict(REWRITE)))
            medclip.pairs.rewrite(self.shards, out, steps=steps)
        return out / "shards"

    def _kinds(self) -> Path:
        """Write what each pair of the training split shows, as `concept` reads it."""
        out, kinds = self.run / "kinds.csv", self._kind_of_figure()
        if not out.is_file():
            with ShardReader(self.shards, "train") as reader:
                rows = [
                    {"key": reader.key(i), "primary": kinds.get(reader.record(i)[1]["sha256"], "clinical image")}
                    for i in range(len(reader))
                ]
            write_rows(out, rows)
        return out

    def _kind_of_figure(self) -> dict[str, str]:
        rows = [row for row in read_rows(self.run / "pile.csv") if row["source"] == FIGURES]
        return {hashlib.sha256(Path(row["file"]).read_bytes()).hexdigest(): row["stratum"] for row in rows}

    def recipe(self, name: str, arm: Arm, seed: int) -> dict[str, Any]:
        """Return the one recipe with what an arm changes of it."""
        recipe = yaml.safe_load((HERE / "recipe.yaml").read_text(encoding="utf-8"))
        scale = SCALES[self.scale]
        for key, value in scale.recipe.items():
            part, _, field = key.partition(".")
            recipe.setdefault(part, {})[field] = value
        recipe |= {"name": f"datacomp-{name}", "seed": seed}
        recipe["train"]["max_steps"] = scale.steps
        recipe["data"]["shards"] = str(self.rewritten() if arm.rewritten else self.shards)
        if arm.rewritten:
            recipe["objective"]["losses"] = dict(HARD_NEGATIVES)
        recipe["objective"] |= arm.objective
        if (kept := self.selection(name, arm, seed)) is not None:
            recipe["data"]["selection"] = str(kept)
        return recipe


def known_of_pairs(shards: Path) -> dict[str, dict[str, str]]:
    """Return of each pair of the training split, by key, what shares are counted by."""
    known = {}
    with ShardReader(shards, "train") as reader:
        for i in range(len(reader)):
            record, meta = reader.record(i)
            age = record.age_years
            known[reader.key(i)] = {
                "modality": str(record.modality or "none stated"),
                "sex": record.sex or "not known",
                "age": "not known" if age is None else "under 40" if age < 40 else "40 to 59" if age < 60 else "60 on",
                "source": meta["source"],
            }
    return known


def shares_of(known: dict[str, dict[str, str]], kept: Path | None) -> dict[str, dict[str, list[int]]]:
    """Count the pairs of the training split that an arm keeps, and all, by modality, sex, age and source."""
    keys = set(known)
    if kept is not None:
        selection = read_selection(kept)
        rows = zip(selection.table.column("key").to_pylist(), selection.kept_N.tolist(), strict=True)
        keys = {key for key, is_kept in rows if is_kept}
    counts: dict[str, dict[str, list[int]]] = {"all": {"all": [len(keys), len(known)]}}
    for key, values in known.items():
        for column, value in values.items():
            count = counts.setdefault(column, {}).setdefault(value, [0, 0])
            count[0] += key in keys
            count[1] += 1
    return counts


def targets_of(split: Split, task: str) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the rows of a split that a task's labels speak of, and their classes; of one finding 0 and 1."""
    names = [c.name for c in load_task(task).classes]
    rows, targets = [], []
    for i, record in enumerate(split.records):
        label = record.labels.get(task)
        if isinstance(label, str):
            rows.append(i)
            targets.append(names.index(label))
        elif label and label.get(names[0]) in (0, 1):
            rows.append(i)
            targets.append(int(label[names[0]]))
    return np.array(rows, np.intp), np.array(targets, np.int64)


def prompts_of(task: str) -> list[tuple[str, ...]]:
    """Return the sentences of each class; of a finding those that deny it, and those that state it."""
    text = class_text(load_task(task))
    if text.rules.independent:
        return [text.negative()[0], text.positive()[0]]
    return list(text.positive())


def asked_of(split: Split) -> dict[str, Any]:
    """Return what is the same for all runs: whose the queries are, and what labels say."""
    asked: dict[str, Any] = {"retrieval": {}, "tasks": {}}
    for source in RETRIEVED:
        rows = np.flatnonzero(split.sources == source)
        asked["retrieval"][source] = numbered(split.patients[rows].tolist()).tolist()
    for task in TASKS:
        rows, targets = targets_of(split, task)
        asked["tasks"][task] = {
            "patients": numbered(split.patients[rows].tolist()).tolist(),
            "targets": targets.tolist(),
            "classes": len(prompts_of(task)),
        }
    return asked


def measured(model: Model, split: Split) -> dict[str, Any]:
    """Return the ranks of right answers, and the scores by a task's own and by unrelated words."""
    ranks: dict[str, Any] = {}
    for source in RETRIEVED:
        rows = np.flatnonzero(split.sources == source)
        if not len(rows):
            continue
        texts = [" ".join(split.records[i].texts) for i in rows]
        patients = split.patients[rows].tolist()
        both = ranks_of_right(
            split.features[rows],
            model.encode_text(texts),
            texts,
            texts,
            image_patients=patients,
            text_patients=patients,
        )
        ranks[source] = dict(zip(("text_to_image", "image_to_text"), (one.tolist() for one in both), strict=True))
    scores = {}
    for task in TASKS:
        rows, _ = targets_of(split, task)
        if not len(rows):
            continue
        prompts, modality = prompts_of(task), load_task(task).modalities[0]
        wordings = other_wordings(prompts, modality)
        assert wordings is not None
        features_ND = split.features[rows].astype(np.float64)
        others_NKC = wordings.scores(model, features_ND)[:, : wordings.num_unrelated]
        own_NC = features_ND @ encode_prompts(model, prompts).T
        scale = float(model.logit_scale)
        scores[task] = {
            "own": np.round(own_NC * scale, DECIMALS).tolist(),
            "unrelated": np.round(others_NKC.swapaxes(0, 1).astype(np.float64) * scale, DECIMALS).tolist(),
        }
    return {"ranks": ranks, "scores": scores}


def run_all(study: Study, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Make what is missing, seed by seed."""
    known, split = known_of_pairs(study.shards), None
    for seed in seeds:
        for name in arms:
            out = study.run / study.scale / "results" / f"{name}_{seed}.json"
            if out.is_file():
                continue
            begun, arm = monotonic(), EVERY_ARM[name]
            pack = trained(study.run / study.scale / "packs" / f"{name}_{seed}", study.recipe(name, arm, seed))
            model = load_model(pack)
            if split is None:
                split = load_split(study.shards, "test", model)
                write_file(study.run / study.scale / "asked.json", json.dumps(asked_of(split)))
            else:
                split = replace(split, features=model.encode_image(split.images))
            result = {
                "arm": name,
                "seed": seed,
                "seen": SCALES[study.scale].seen,
                "shares": shares_of(known, study.selection(name, arm, seed)),
                **measured(model, split),
                "seconds": round(monotonic() - begun, 1),
            }
            write_file(out, json.dumps(result))
            print(f"{name}, seed {seed}: {result['seconds']} s", flush=True)


def measure_start(study: Study) -> None:
    """Measure the pack that all runs begin with, at its own size, where they begin with one: what training moved."""
    start, out = study.recipe(BASE, ARMS[BASE], 0)["model"]["start"], study.run / study.scale / "start.json"
    if start is not None and not out.is_file():
        model = load_model(start)
        write_file(out, json.dumps(measured(model, load_split(study.shards, "test", model))))


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="shared")
    parser.add_argument("--arms", nargs="+", choices=EVERY_ARM, default=list(MEASURED))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    study = Study(arguments.run, arguments.scale)
    run_all(study, arguments.arms, arguments.seeds)
    measure_start(study)
    result_tables.write_tables(arguments.run / arguments.scale)


if __name__ == "__main__":
    main()
