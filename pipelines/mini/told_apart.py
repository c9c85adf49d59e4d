"""What a prompt is compared with, and whether two findings are told from each other among the ill.

Usage: python pipelines/mini/told_apart.py TABLE.csv OUT.json EMBEDDINGS... [--split val] [--model PACK]

Each finding of the card's tasks that ask for presence is scored by the task's own sentences against their denials, by
its first wording against "no" before it, and against the other findings of the modality (`--against others`), each with
its word control. Then the findings of chest films are told from each other among films that have a finding
(`medclip.evaluation.among_ill`). Intervals resample patients; differences are paired.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from table import SHARES

import medclip
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.evaluation.among_ill import measure_among_ill
from medclip.evaluation.word_control import MOST_WORDS, UNRELATED, Wordings, compare_words
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.sample import Modality
from medclip.shards.writing.splits import split_of
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.own_words import OTHERS, other_findings, read_prompts, templates_of
from medclip.text.vocabulary.prompts import expand

WITHIN = {"chest_xray_findings": "nih_cxr"}
"""The source within which a figure is that of the card."""


def rows_of(table: Path, split: str) -> list[dict[str, str]]:
    """Return the rows of a split."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("split") or split_of(row["patient"], SHARES, 0)) == split]


def features_of(folders: list[Path]) -> dict[str, np.ndarray]:
    """Return the vector of each file by its name and folder."""
    vectors = {}
    for folder in folders:
        embeddings = open_embeddings(folder)
        paths = dict(zip(*(embeddings.files[name].to_pylist() for name in ("row", "path")), strict=True))
        for row, vector in zip(embeddings.units["row"].to_pylist(), embeddings.vectors("units"), strict=True):
            vectors[paths[row]] = vector
    return vectors


def of_file(vectors: dict[str, np.ndarray], file: str) -> np.ndarray | None:
    """Return the vector of a file of the table; paths of embeddings are below the folder that was named."""
    parts = Path(file).parts
    names = (str(Path(*parts[start:])) for start in range(len(parts)))
    return next((vectors[name] for name in names if name in vectors), None)


def sides(texts: tuple[str, ...], against: str, modality: Modality) -> list[tuple[str, ...]]:
    """Return the sentences against and for a prompt."""
    (prompt,) = read_prompts([" | ".join(texts)], [against] if against else ())
    sentences = prompt.of_modality(modality).sentences(templates_of(modality))
    return [sentences.negative, sentences.positive]


def measure(model: Any, task: str, finding: str, rows: list[dict[str, str]], vectors: dict[str, np.ndarray]) -> Any:
    """Measure a finding by the three ways, with differences from the task's own sentences."""
    column, modality = f"label:{task}:{finding}", load_task(task).modalities[0]
    source = WITHIN.get(task)
    rows = [row for row in rows if row.get(column) in ("0", "1") and source in (None, row["source"])]
    paired = [(row, vector) for row in rows if (vector := of_file(vectors, row["file"])) is not None]
    features = np.stack([vector for _, vector in paired])
    labels = np.array([int(row[column]) for row, _ in paired])
    patients, sources = [row["patient"] for row, _ in paired], [row["source"] for row, _ in paired]
    (own,) = expand(load_task(task), [finding])
    phrase = load_task(task).class_named(finding).prompts[:1]
    ways = {
        "own sentences": [own.negative, own.positive],
        "no": sides(phrase, "", modality),
        OTHERS: sides(phrase, OTHERS, modality),
    }

    def scores(pair: Any) -> np.ndarray:
        return features @ encode_prompts(model, pair).T

    of_own = scores(ways["own sentences"])
    result: dict[str, Any] = {"num": [int(labels.sum()), int((1 - labels).sum()), len(set(patients))]}
    words = {
        "unrelated": UNRELATED,
        "findings": other_findings(modality, [own.positive], of_presence=True)[:MOST_WORDS],
    }
    for name, pair in ways.items():
        against = OTHERS if name == OTHERS else ""
        ours = scores(pair)
        entry: dict[str, Any] = {}
        for kind, phrases in words.items():
            if not phrases:
                continue  # the vocabulary has no other findings of the modality
            asked = [sides((one,), against, modality) for one in phrases]
            wordings = Wordings(tuple(phrases), tuple(map(tuple, asked)), len(asked))
            control = compare_words(ours, wordings.scores(model, features), wordings, labels, patients, sources=sources)
            assert control is not None
            entry |= {"auroc": asdict(control.own_words), kind: asdict(control.unrelated)}
        one = Wordings(("own",), (tuple(ways["own sentences"]),), 1)
        paired_with = compare_words(ours, of_own[:, None], one, labels, patients, sources=sources)
        assert paired_with is not None
        entry["less own sentences"] = asdict(paired_with.unrelated.difference)
        result[name] = entry
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("embeddings", type=Path, nargs="+")
    parser.add_argument("--split", default="val")
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--model", default="medclip-mini")
    options = parser.parse_args()
    model, rows, vectors = (
        medclip.models.load(options.model),
        rows_of(options.table, options.split),
        features_of(options.embeddings),
    )
    result: dict[str, Any] = {}
    for task, entry in model.card.tasks.items():
        if load_task(task).rules.independent and (options.tasks is None or task in options.tasks):
            for finding in entry.classes:
                result[f"{task}, {finding}"] = of = measure(model, task, finding, rows, vectors)
                print(task, finding, of["num"])
                for name, way in of.items():
                    if name != "num":
                        apart = in_words(way["less own sentences"])
                        print(f"  {name}: {in_words(way['auroc'])}, less own sentences {apart}")
                        for kind in {"unrelated", "findings"} & way.keys():
                            print(f"     less {kind}: {in_words(way[kind]['difference'])}")
    task = load_task("chest_xray_findings")
    films = [row for row in rows if row["source"] == WITHIN[task.name]]
    features = np.stack([vector for row in films if (vector := of_file(vectors, row["file"])) is not None])
    names = [c.name for c in task.classes]
    targets = np.array([[float(row.get(f"label:{task.name}:{name}") or "nan") for name in names] for row in films])
    pairs = measure_among_ill(model, task, names, features, targets, [row["patient"] for row in films])
    result["among ill"] = {name: asdict(figure) for name, figure in pairs.items()}
    for name, figure in pairs.items():
        print(f"{name}: {in_words(asdict(figure))}")
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def in_words(figure: dict[str, Any]) -> str:
    """Write a figure with its interval."""
    ends = [figure.get(name) for name in ("value", "low", "high")]
    return " ".join("none" if end is None else f"{end:.3f}" for end in ends)


if __name__ == "__main__":
    main()
