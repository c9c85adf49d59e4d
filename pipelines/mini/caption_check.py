"""Stage 2: does a caption tell where an image is from?

Usage: python pipelines/mini/caption_check.py TABLE.csv OUT.json

For every finding that two sources of one kind of image have, the source is predicted from the words of captions, drawn
as training draws them, by a logistic regression on held-out patients. Beside it stands what the labels alone give: a
source that was labelled for fourteen findings speaks of fourteen, and no wording can hide that.

Such a source is told by its labels without an error, and nothing could tell more. So captions are judged by what all of
the sources state: records are cut to the labels that each source of the finding has, and captions of these that tell
the source better than these labels do end the script with exit code 1. So does a word that betrays a source by name.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.shards.writing.table import ShardRow, read_shard_table
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.text.captions.draw import draw_caption
from medclip.text.captions.quoted_words import betrayal_in
from medclip.text.captions.record import CaptionRecord

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, plain  # pyright: ignore[reportMissingImports]

FEWEST = 20
"""Patients of a source with a finding below which it takes no part."""
MOST = 300
"""Rows of a source with a finding that captions are drawn of."""
DRAWN = 3
"""Captions of each row."""
NATIVE_SHARE = 0.3
"""As recipe.yaml draws them."""
KNOWN_SHARE = 0.5
"""Share of a source's rows that state a label from which on the source is said to have it."""
FOLDS = 4
FIGURES = ("stated", "captions", "labels", "common_stated", "common_labels")


@dataclass(frozen=True)
class Cell:
    """A finding of one kind of image, and the rows that have it."""

    kind: str
    finding: str
    rows: tuple[ShardRow, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Where they are from."""
        return tuple(sorted({row.source for row in self.rows}))


def cells_of(rows: Sequence[ShardRow]) -> list[Cell]:
    """Return the findings that two sources of a kind have, each with enough patients."""
    found: dict[tuple[str, str], dict[str, list[ShardRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not row.record.generic and row.record.modality is not None:
            kind = f"{row.record.modality} {row.view_kind}"
            for finding in findings_of(row.record):
                found[kind, finding][row.source].append(row)
    cells = []
    for (kind, finding), by_source in sorted(found.items()):
        enough = {s: own for s, own in by_source.items() if len({row.patient for row in own}) >= FEWEST}
        if len(enough) > 1:
            cells.append(Cell(kind, finding, tuple(row for own in enough.values() for row in own[:MOST])))
    return cells


def findings_of(record: CaptionRecord) -> list[str]:
    """Return what labels say is there."""
    findings = []
    for task, label in record.labels.items():
        present = [label] if isinstance(label, str) else [name for name, value in label.items() if value == 1]
        findings += [f"{task}: {name}" for name in present]
    return findings


def stated_by(record: CaptionRecord) -> set[str]:
    """Return what a record says something of: tasks of one true class, and findings that are there or not."""
    names: set[str] = set()
    for task, label in record.labels.items():
        names |= {task} if isinstance(label, str) else {f"{task}:{finding}" for finding in label}
    return names


def cut(rows: Sequence[ShardRow]) -> list[ShardRow]:
    """Return rows with the labels alone that every source of theirs has; all else that is known of them stays."""
    own: dict[str, list[set[str]]] = defaultdict(list)
    for row in rows:
        own[row.source].append(stated_by(row.record))
    everything = set().union(*(names for of_source in own.values() for names in of_source))
    shared = {
        name
        for name in everything
        if all(sum(name in names for names in of) >= KNOWN_SHARE * len(of) for of in own.values())
    }

    def labels_of(record: CaptionRecord) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for task, label in record.labels.items():
            if isinstance(label, str):
                kept |= {task: label} if task in shared else {}
            elif found := {name: value for name, value in label.items() if f"{task}:{name}" in shared}:
                kept[task] = found
        return kept

    return [replace(row, record=replace(row.record, labels=labels_of(row.record))) for row in rows]


def captions_of(row: ShardRow, native_share: float = NATIVE_SHARE) -> list[str]:
    """Draw captions of a row, as training does."""
    rng = np.random.default_rng(row.number)
    return [draw_caption(row.record, rng, native_share=native_share) for _ in range(DRAWN)]


def labels_in_words(record: CaptionRecord) -> str:
    """Return labels as words of which each states one."""
    words = []
    for task, label in record.labels.items():
        pairs = [(label, 1)] if isinstance(label, str) else list(label.items())
        words += [f"{task}_{name}_{value}" for name, value in pairs]
    return " ".join(words)


def measure(cell: Cell) -> dict[str, Any]:
    """Measure how well the source is told from captions, from labels alone, and from both cut to common labels."""
    sources, common = cell.sources, cut(cell.rows)
    truth = np.array([sources.index(row.source) for row in cell.rows for _ in range(DRAWN)])
    patients = [row.patient for row in cell.rows for _ in range(DRAWN)]
    texts = {
        "stated": [text for row in cell.rows for text in captions_of(row, 0)],
        "captions": [text for row in cell.rows for text in captions_of(row)],
        "labels": [labels_in_words(row.record) for row in cell.rows for _ in range(DRAWN)],
        "common_stated": [text for row in common for text in captions_of(row, 0)],
        "common_labels": [labels_in_words(row.record) for row in common for _ in range(DRAWN)],
    }
    scores = {name: guessed(of, truth, patients) for name, of in texts.items()}
    figures = {
        name: measured(truth, table, patients, ["balanced_accuracy"])["balanced_accuracy"]
        for name, table in scores.items()
    }
    more = plain(difference(figures["common_labels"], figures["common_stated"]))
    return {
        "kind": cell.kind,
        "finding": cell.finding,
        "sources": list(sources),
        "num_patients": len(set(patients)),
        "chance": round(1 / len(sources), 4),
        **{name: plain(interval_of(f)) for name, f in figures.items()},
        "common_stated_minus_labels": more,
        "tells_more_than_labels": more["low"] > 0,
    }


def guessed(texts: Sequence[str], truth: NDArray[np.intp], patients: Sequence[str]) -> NDArray[np.float64]:
    """Return the probabilities of each source [N, S], of a model that did not see the patient."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    table = np.zeros((len(truth), int(truth.max()) + 1))
    for train, test in GroupKFold(FOLDS).split(texts, groups=patients):
        words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", binary=True)
        model = make_pipeline(words, LogisticRegression(C=0.3, class_weight="balanced", max_iter=400))
        model.fit([texts[i] for i in train], truth[train])
        table[np.ix_(test, model.classes_)] = model.predict_proba([texts[i] for i in test])
    return table


def betrayals(rows: Sequence[ShardRow]) -> list[str]:
    """Return the words by which drawn captions and own texts betray where they are from; none is right."""
    texts = [text for row in rows for text in (*row.record.texts, *captions_of(row))]
    return sorted({word.lower() for text in texts if (word := betrayal_in(text))})


def table_of(figures: Sequence[Mapping[str, Any]]) -> str:
    """Write what was measured as a table."""
    lines = [
        "| kind | finding | sources | patients | chance | stated captions | all captions | labels alone | "
        "stated captions of common labels | common labels alone |",
        "|---" * 10 + "|",
    ]
    for f in figures:
        lines.append(
            f"| {f['kind']} | {f['finding']} | {', '.join(f['sources'])} | {f['num_patients']} | {f['chance']:.2f} | "
            + " | ".join(in_words(f[name], 2) for name in FIGURES)
            + " |"
        )
    return "\n".join(lines)


def main(table: str, out: str) -> int:
    """Measure, write and print."""
    rows = read_shard_table(table).rows
    words, figures = betrayals(rows), [measure(cell) for cell in cells_of(rows)]
    Path(out).write_text(json.dumps({"betrayed_by": words, "findings": figures}, indent=1) + "\n", encoding="utf-8")
    print(table_of(figures))
    print(f"words that betray a source: {', '.join(words) or 'none'}")
    return int(bool(words) or any(f["tells_more_than_labels"] for f in figures))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
