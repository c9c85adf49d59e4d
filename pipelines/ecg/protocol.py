"""The benchmark of PTB-XL: folds 1 to 8 for training, 9 for validation, 10 for testing, six levels, macro AUC.

Usage: python pipelines/ecg/protocol.py TABLE RUN [--images FOLDER] [--start PACK] [--tiny]

TABLE is PTB-XL's own `ptbxl_database.csv` (the whole set where it lies, or a part), or the table that ptbxl.py writes
of the shared parts. One tower learns the heads of all levels (protocol.yaml), from random weights or with the tower of
PACK; where that knows words, they are asked, too, without any label. Areas are means over the classes that at least
three test patients have, with intervals over resamples of patients. A listed statement counts, whatever its likelihood,
as in the benchmark. Kill it anywhere and call it again. It writes RUN/figures.json and RUN/table.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured_plan as plan
import yaml
from records import encode, measured

from medclip.api.captions import captions
from medclip.models.packs.pack import find_pack, load_model
from medclip.shards.writing.build import Form, build_shards
from medclip.text.vocabulary.load import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, measure, read_rows, trained, write_rows  # pyright: ignore[reportMissingImports]

PUBLISHED: Mapping[str, str] = {
    "ecg_all": "0.925",
    "ecg_diagnostic": "0.937",
    "ecg_subclass": "0.930",
}
"""Best macro AUC of the benchmark's own list, on all of fold 10; a tower for each level."""
VALIDATION, TEST = 9, 10
TINY_STEPS = 2


@dataclass(frozen=True)
class Place:
    """What is measured, and where everything lies."""

    table: Path
    run: Path
    images: Path
    start: str | None = None
    tiny: bool = False

    @property
    def shards(self) -> Path:
        """With labels and PTB-XL's splits."""
        return self.run / "shards"


def split_of(fold: int) -> str:
    """Return the split of a fold."""
    return {VALIDATION: "val", TEST: "test"}.get(fold, "train")


def prepare(place: Place) -> Path:
    """Build shards and train the heads; returns the pack. Patients in two splits are refused."""
    if not (place.shards / "index.json").is_file():
        rows = read_rows(place.table)
        if "fold" in rows[0]:
            rows = [{**row, "split": split_of(int(row["fold"]))} for row in rows]
        else:
            place.run.mkdir(parents=True, exist_ok=True)
            own = place.run / "captions.csv"
            captions(place.table, own, from_="ecg", num_captions=1, images=place.images, overwrite=True)
            rows = read_rows(own)
        wordless = [{k: v for k, v in row.items() if k not in ("captions", "report")} for row in rows]
        table = write_rows(place.run / "labels.csv", wordless)
        build_shards(table, place.shards, Form(stores="signals"), images=place.run)
    return trained(place.run / "heads", recipe_of(place))


def recipe_of(place: Place) -> dict[str, Any]:
    """Return protocol.yaml with what is begun with."""
    recipe = yaml.safe_load((Path(__file__).parent / "protocol.yaml").read_text(encoding="utf-8"))
    recipe["data"]["shards"] = str(place.shards)
    if place.start is not None:
        recipe["model"] = {"signal": {}, "image_weights": place.start}
    elif place.tiny:
        recipe["model"] = {"signal": {"tower": "resnet1d", "size": "test", "sampling_hz": 100}}
    if place.tiny:
        recipe["train"] |= {"max_steps": TINY_STEPS, "batch_size": 8, "warmup_steps": 1, "threads": 1}
    return recipe


def stage_heads(place: Place) -> dict[str, Any]:
    """Measure the heads on fold 10."""
    records = encode(place.run / "heads" / "pack", place.shards, "test")
    levels = {task: measured(records.by_head(task), records, task, plan.NUM_RESAMPLES) for task in plan.LEVELS}
    return {"num_test": len(records.patients), "levels": levels}


def stage_words(place: Place) -> dict[str, Any]:
    """Measure the words of the model that was begun with; nothing where it knows none."""
    if place.start is None or not load_model(place.start).has_text:
        return {}
    records = encode(find_pack(place.start), place.shards, "test")
    levels = {task: measured(records.by_words(task), records, task, plan.NUM_RESAMPLES) for task in plan.LEVELS}
    return {"levels": levels}


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""
    words = figures["words"].get("levels", {})
    lines = [
        f"{figures['heads']['num_test']} test records.",
        "",
        "| level | classes (measured) | macro AUC (95 % interval) | in words | published |",
        "|" + "---|" * 5,
    ]
    for task, level in figures["heads"]["levels"].items():
        asked = load_task(task)
        heads, told = (in_words(e["macro_auroc"]) if "macro_auroc" in e else "" for e in (level, words.get(task, {})))
        lines.append(
            f"| {asked.title} | {len(asked.classes)} ({level['num_classes']}) | {heads} | {told} | "
            f"{PUBLISHED.get(task, '')} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--start")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    table = args.table.resolve()
    place = Place(table, args.run.resolve(), (args.images or table.parent).resolve(), args.start, args.tiny)
    prepare(place)
    measure(place.run, {"heads": lambda: stage_heads(place), "words": lambda: stage_words(place)}, table_of)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
