"""Build both sets, train both arms with every seed, and measure: what stands in measured_plan.py.

Usage: python pipelines/views/measure.py SHARED_DATA RUN [--seeds N...] [--steps N]

Killed and called again, it goes on: shards, packs and vectors are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import result_tables
import yaml
from measured_plan import CROP_PX, OBJECTS, SEEDS, TASKS, WITH, WITHOUT
from measured_split import Split, load_split
from measuring import trained, write_rows
from PIL import Image
from shared_sets import Row, read_labels, rows_of

import medclip
from medclip.adaptation.data.class_text import class_text
from medclip.files.output import write_file
from medclip.models.packs.pack import Model, load_model
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.text.vocabulary.load import load_task

START = "medclip-mini"
KEY = b"medclip-mini public sets".ljust(32)
"""Public, and that of pipelines/mini: who is held out there is held out here."""
PNEUMONIA = "label:chest_xray_findings:pneumonia"


def rows(name: str, data: Path, run: Path) -> Iterator[Row]:
    """Yield the rows of a set; films keep the one label that both sites have."""
    if name == "breasts":
        yield from rows_of(data, ("cdd_cesm",))
        return
    for row in rows_of(data, ("nih_cxr",)):
        label = row[PNEUMONIA]
        yield {k: v for k, v in row.items() if not k.startswith("label:") and k != "view"} | {PNEUMONIA: label}
    for r in read_labels(data / "kermany_cxr"):
        file = run / "cropped" / Path(r["file"]).with_suffix(".png").name
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(data / "kermany_cxr" / r["file"]) as image:
                side, (w, h) = min(image.size), image.size
                box = ((w - side) / 2, (h - side) / 2, (w + side) / 2, (h + side) / 2)
                image.convert("L").resize((CROP_PX, CROP_PX), Image.Resampling.LANCZOS, box, reducing_gap=3).save(file)
        yield {
            "file": str(file.resolve()),
            "patient": f"kermany:{r['patient_id']}",
            "modality": "xray",
            "source": "kermany_cxr",
            "license": "none stated, believed CC BY 4.0 (not verified)",
            PNEUMONIA: str(int(r["label"] == "pneumonia")),
            "stratum": f"kermany {r['label']}",
        }


def build(name: str, data: Path, run: Path) -> Path:
    """Return the shards of a set, built where they were not."""
    shards, key = run / name / "shards", run / "key"
    if not (shards / "index.json").is_file():
        (run / name).mkdir(parents=True, exist_ok=True)
        key.write_bytes(KEY)
        table = write_rows(
            run / name / "table.csv", [row | {"file": str(data / row["file"])} for row in rows(name, data, run)]
        )
        medclip.shards.build(table, out=shards, max_side_px=192, splits="train=0.65,val=0.10,test=0.25", key_file=key)
    return shards


def recipe(name: str, arm: str, seed: int, shards: Path, steps: int | None) -> dict[str, Any]:
    """Return the one recipe with what an arm changes of it; other than its own steps in a smoke run alone."""
    plan = yaml.safe_load((Path(__file__).parent / "recipe.yaml").read_text(encoding="utf-8"))
    plan |= {"name": f"views-{name}-{arm}", "seed": seed}
    plan["data"]["shards"] = str(shards)
    plan["train"] |= {} if steps is None else {"max_steps": steps, "warmup_steps": 1}
    plan["objective"]["losses"] = {"views": dict(OBJECTS[name])} if arm == WITH else {}
    return plan


def known_of(split: Split, name: str) -> dict[str, Any]:
    """Return what is known of the test images, the same for all runs."""
    task, asked = TASKS[name]
    labels = [record.labels.get(task) for record in split.records]
    return {
        "patients": np.unique(split.patients, return_inverse=True)[1].tolist(),
        "sources": split.sources.tolist(),
        "truth": [int(v == asked if isinstance(v, str) else v[asked]) for v in labels],
        "laterality": [record.laterality for record in split.records],
        "projection": [record.view for record in split.records],
    }


def scores_of(model: Model, split: Split, name: str) -> np.ndarray:
    """Score the class of the plan in words: its cosine less the highest of the rivals."""
    task, asked = TASKS[name]
    text = class_text(load_task(task))
    place = text.names.index(asked)
    others = [sentences for i, sentences in enumerate(text.positive()) if i != place]
    rivals = [text.negative()[place]] if text.rules.independent else others
    cosine_NC = split.features.astype(np.float64) @ encode_prompts(model, [text.positive()[place], *rivals]).T
    return cosine_NC[:, 0] - cosine_NC[:, 1:].max(axis=1)


def measure(name: str, pack: str | Path, shards: Path, out: Path) -> None:
    """Keep the vectors and scores of the test images, and once what is known of them."""
    if not out.is_file():
        model = load_model(pack)
        split = load_split(shards, "test", model)
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(out, vectors=split.features, scores=scores_of(model, split, name))
        write_file(out.parent / "known.json", json.dumps(known_of(split, name)))
        print(f"{name}, {out.stem}: done", flush=True)


def main() -> None:
    """Run what is missing, seed by seed, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    run, data = arguments.run, arguments.data.resolve()
    shards: Mapping[str, Path] = {name: build(name, data, run) for name in OBJECTS}
    for seed in arguments.seeds:
        for name in OBJECTS:
            for arm in (WITHOUT, WITH):
                plan = recipe(name, arm, seed, shards[name], arguments.steps)
                pack = trained(run / name / "packs" / f"{arm}_{seed}", plan)
                measure(name, pack, shards[name], run / name / "vectors" / f"{arm}_{seed}.npz")
    for name in OBJECTS:
        measure(name, START, shards[name], run / name / "vectors" / "start.npz")
    result_tables.write_tables(run, arguments.seeds)


if __name__ == "__main__":
    main()
