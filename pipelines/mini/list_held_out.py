"""Put into a pack that was published before the list of its held-out files, and into its card the figures by source.

Usage: python pipelines/mini/list_held_out.py SHARED_DATA TABLE.csv [PACK]

TABLE.csv is what `prepare.py` wrote for the pack. Who is held out follows from the patients' names alone; that it is
the division of the pack is proven by its own list of training files. The figures by source are those of `medclip
evaluate --suite mini`. Where nobody knows whose images they are, the card no longer says a number of patients. Packs
that `publish.py` writes today have all of this.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from shared_sets import PATIENTS_KNOWN

import medclip
from medclip.evaluation.zero_shot.figures import TaskFigures
from medclip.models.packs.card import Card, training_hashes
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.manifest import file_sha256
from medclip.models.packs.pack import check_pack, find_pack, pack_card, update_pack
from medclip.shards.writing.splits import split_of

SPLITS = {"train": 0.65, "val": 0.10, "test": 0.25}
TEST_HASHES = "test_hashes.txt"


def held_out(table: Path) -> dict[str, set[str]]:
    """Return the sha256 of the files of each split."""
    with table.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    stated = {row["patient"]: row["split"] for row in rows if row["split"]}
    hashes: dict[str, set[str]] = {name: set() for name in SPLITS}
    for row in rows:
        split = stated.get(row["patient"]) or split_of(row["patient"], SPLITS, 0)
        hashes[split].add(file_sha256(Path(row["file"])))
    return hashes


def with_sources(card: Card, measured: tuple[TaskFigures, ...]) -> dict[str, Any]:
    """Return the tasks of a card with what was measured by source, and without patients that nobody knows."""
    fields = card.model_dump()["tasks"]
    for task in measured:
        entry, name = fields.get(task.task), task.finding or ALL
        if entry is None or (task.finding is not None and task.finding not in entry["classes"]):
            continue
        sources = task.sources or task.source_names
        entry["sources"][name] = {"verdict": task.verdict, "sources": sources, "figures": dict(task.by_source)}
        is_finding = task.finding is not None  # whose figure is that within its sources
        if not set(sources if is_finding else task.source_names) <= PATIENTS_KNOWN:
            forget_patients(entry["metrics"]["auroc"][task.finding] if is_finding else entry["metrics"])
    return fields


def forget_patients(node: dict[str, Any], name: str = "") -> None:
    """Take the number of patients out of figures, but those of a source whose patients are known."""
    if "value" not in node:
        for child, below in node.items():
            forget_patients(below, child)
    elif not any(name == f"zero_shot_{source}_only" for source in PATIENTS_KNOWN):
        node["num_patients"] = None


def main(data: Path, table: Path, model: str = "medclip-mini") -> None:
    """List, measure, write, seal."""
    pack, card = find_pack(model), pack_card(model)
    hashes = held_out(table)
    if hashes["train"] != set(training_hashes(pack, card) or ()):
        raise SystemExit(f"{table} is not divided as the data of {card.name} {card.version} was.")
    listed = sorted(hashes["test"] - hashes["train"])
    card = card.model_copy(update={"test_hashes_file": TEST_HASHES})
    update_pack(pack, card=card, extra_files={TEST_HASHES: "\n".join([*listed, ""]).encode()})
    result = medclip.evaluate(data, model=model, suite="mini")
    print("\n".join(result.lines()))
    fields: dict[str, Any] = card.model_dump() | {"tasks": with_sources(card, result.tasks)}
    for source in fields["data"]:
        source["num_patients"] = source["num_patients"] if source["name"] in PATIENTS_KNOWN else None
    update_pack(pack, card=Card.model_validate(fields))
    check_pack(model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
