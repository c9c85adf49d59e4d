"""Labels of clusters become labels of their images, and a drawn sample says how often each label is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_file, write_file
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.pairs.concepts.image_clusters import draw_members, read_clusters
from medclip.result import Result
from medclip.statistics.resampling.intervals import wilson

KINDS = ("panel_type", "panel_subtype", "primary", "secondary")
LISTS = ("primary", "secondary")
"""Kinds of which an image may have several."""
_Z = 1.959963984540054
"""Of intervals of 95 %."""
_ANSWERS = {"1": True, "yes": True, "true": True, "y": True, "0": False, "no": False, "false": False, "n": False}


@dataclass(frozen=True)
class Precision:
    """How often a label is right of the images of the clusters that were looked at."""

    kind: str
    term: str
    num_right: int
    num_checked: int
    precision: float
    """Mean over clusters, each weighing as many images as it has."""
    low: float
    """Of Wilson's interval of 95 %, for the effective number of images (Kish 1965)."""
    high: float


@dataclass(frozen=True, repr=False)
class ClusterLabels(Result):
    """What became of labels."""

    out: Path
    num_images: int
    num_labelled: int
    """Images of clusters with a label."""
    num_clusters: int
    num_unlabelled: int
    """Clusters without."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by kind and term."""
    check: Path | None = None
    """Table of drawn images to check."""
    num_drawn: int = 0
    precision: tuple[Precision, ...] = ()

    def _facts(self) -> dict[str, object]:
        return {
            "images": f"{self.num_labelled} of {self.num_images} labelled",
            "clusters": f"{self.num_clusters}, {self.num_unlabelled} of them without a label",
            "to check": "" if self.check is None else f"{self.num_drawn} images, in {self.check}",
            "checked": ", ".join(f"{p.term} {p.precision:.2f} [{p.low:.2f}, {p.high:.2f}]" for p in self.precision),
            "table": self.out,
        }

    def _rows(self, most: int | None = None) -> Sequence[Mapping[str, Any]]:
        return [asdict(row) for row in self.precision[:most]] or super()._rows(most)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data for JSON."""
        return {**asdict(self), "out": str(self.out), "check": None if self.check is None else str(self.check)}


def read_taxonomy(path: Path | None) -> dict[str, tuple[str, ...]]:
    """Read the terms of each kind: of a file, or those that medclip has.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID for anything else than lists of texts under the four kinds.
    """
    if path is None:
        return dict(_own_taxonomy())
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file.", where=path, hint="Check the path.") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is no YAML ({type(e).__name__}).", where=path) from None
    fits = isinstance(values, dict) and set(values) == set(KINDS)
    if not fits or not all(isinstance(v, list) and v and all(isinstance(t, str) for t in v) for v in values.values()):
        raise MedclipError(
            Reason.RECIPE_INVALID, f"a taxonomy has a list of terms for each of {', '.join(KINDS)}.", where=path
        )
    return {kind: tuple(values[kind]) for kind in KINDS}


@cache
def _own_taxonomy() -> Mapping[str, tuple[str, ...]]:
    text = (files("medclip.pairs.concepts") / "taxonomy.yaml").read_text(encoding="utf-8")
    return {kind: tuple(terms) for kind, terms in yaml.safe_load(text).items()}


def label_images(
    clusters: Path,
    labels: Any,
    out: Path,
    *,
    taxonomy: Path | None,
    num_drawn: int | None,
    checked: Path | None,
    seed: int,
    overwrite: bool,
) -> ClusterLabels:
    """Write the labels of images, each of which has those of its cluster.

    Args:
        clusters: Folder of the clusters.
        labels: Table with the column `cluster` and one for each kind; several terms of a cell stand behind semicolons.
        out: Parquet file: key, cluster, and the labels; null or an empty list where a cluster has none.
        taxonomy: File of the terms; medclip's own where None.
        num_drawn: Number of images of each cluster to check; None draws none. Their table stands beside `out`.
        checked: Table of drawn images whose column `right` is filled in.
        seed: Seed of the draw.
        overwrite: Whether tables that are there are replaced.

    Raises:
        MedclipError: TABLE_INVALID for an unknown cluster or term, a cluster twice, or an answer that is none.
    """
    claim_file(out, overwrite=overwrite)
    check = None if num_drawn is None else out.with_name(f"{out.stem}_check.csv")
    if check is not None:
        claim_file(check, overwrite=overwrite)
    grouped, table = read_clusters(clusters)
    terms_of = _labels_of(read_table(labels), read_taxonomy(taxonomy), grouped.num_clusters)
    keys, cluster_N = table.column("key").to_pylist(), table.column("cluster").to_numpy()
    blank: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ())
    rows = [terms_of.get(int(cluster), blank) for cluster in cluster_N]
    precision = (
        ()
        if checked is None
        else _precision(
            read_table(checked),
            dict(zip(keys, rows, strict=True)),
            dict(zip(keys, cluster_N.tolist(), strict=True)),
            grouped.sizes,
        )
    )
    columns: dict[str, Any] = {"key": keys, "cluster": pa.array(cluster_N, pa.int64())}
    for kind in KINDS:
        values = [list(row[kind]) if kind in LISTS else next(iter(row[kind]), None) for row in rows]
        columns[kind] = pa.array(values, pa.list_(pa.string()) if kind in LISTS else pa.string())
    write_file(out, parquet_bytes(pa.table(columns)))
    drawn: list[dict[str, Any]] = []
    if check is not None and num_drawn is not None:
        for members in draw_members(cluster_N, grouped.num_clusters, num_drawn, seed):
            for n in members.tolist():
                facts = {"key": keys[n], "cluster": int(cluster_N[n])}
                drawn += [{**facts, "kind": k, "term": t, "right": ""} for k in KINDS for t in rows[n][k]]
        names = {"key": pa.string(), "cluster": pa.int64(), "kind": pa.string(), "term": pa.string()}
        write_file(check, csv_bytes(pa.Table.from_pylist(drawn, pa.schema({**names, "right": pa.string()}))))
    labelled = {cluster for cluster, terms in terms_of.items() if any(terms.values())}
    return ClusterLabels(
        out,
        len(rows),
        sum(any(row.values()) for row in rows),
        grouped.num_clusters,
        grouped.num_clusters - len(labelled),
        {kind: dict(sorted(Counter(term for row in rows for term in row[kind]).items())) for kind in KINDS},
        check,
        len({row["key"] for row in drawn}),
        precision,
    )


def _labels_of(
    table: Table, taxonomy: Mapping[str, Sequence[str]], num_clusters: int
) -> dict[int, dict[str, tuple[str, ...]]]:
    """Return the terms of each cluster that a table names, by kind."""
    numbers = table.texts(table.need("cluster"))
    cells = {kind: table.texts(table.need(kind)) for kind in KINDS}
    terms_of: dict[int, dict[str, tuple[str, ...]]] = {}
    for row, text in enumerate(numbers, 1):
        if not text.strip().isdecimal() or int(text) >= num_clusters:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {row}: there is no cluster {text.strip()!r}; they are numbered from 0 to {num_clusters - 1}.",
                where=table.where,
            )
        if int(text) in terms_of:
            raise MedclipError(Reason.TABLE_INVALID, f"row {row}: cluster {text} is there twice.", where=table.where)
        terms_of[int(text)] = {k: _terms(cells[k][row - 1], k, taxonomy[k], row, table.where) for k in KINDS}
    return terms_of


def _terms(cell: str, kind: str, terms: Sequence[str], row: int, where: Any) -> tuple[str, ...]:
    by_name = {term.casefold(): term for term in terms}
    named = [part.strip() for part in cell.split(";") if part.strip()]
    for name in named:
        if name.casefold() not in by_name:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {row}: {name!r} is no {kind} of the taxonomy.",
                where=where,
                hint=did_you_mean(name, terms, "Terms are"),
            )
    if kind not in LISTS and len(named) > 1:
        raise MedclipError(Reason.TABLE_INVALID, f"row {row}: a cluster has one {kind}.", where=where)
    return tuple(dict.fromkeys(by_name[name.casefold()] for name in named))


def _precision(
    table: Table,
    labels_of: Mapping[str, Mapping[str, Sequence[str]]],
    cluster_of: Mapping[str, int],
    sizes: Sequence[int],
) -> tuple[Precision, ...]:
    """Measure how often each label is right; rows without an answer are left out.

    As many images are drawn of a small cluster as of a large one, so each answer weighs size / answers of its cluster.
    """
    keys, kinds, terms, answers = (table.texts(table.need(name)) for name in ("key", "kind", "term", "right"))
    answered: dict[tuple[str, str], dict[int, list[bool]]] = {}
    for row, (key, kind, term, text) in enumerate(zip(keys, kinds, terms, answers, strict=True), 1):
        if not text.strip():
            continue
        answer = _ANSWERS.get(text.strip().casefold())
        if answer is None:
            raise MedclipError(
                Reason.TABLE_INVALID, f"row {row}: `right` is yes or no, not {text!r}.", where=table.where
            )
        if term not in labels_of.get(key, {}).get(kind, ()):
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {row}: the image has no such label now.",
                where=table.where,
                hint="Draw anew for the labels as they are: --sample M.",
            )
        answered.setdefault((kind, term), {}).setdefault(cluster_of[key], []).append(answer)
    order = sorted(answered.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    return tuple(precision_of(*label, of_cluster, sizes) for label, of_cluster in order)


def precision_of(kind: str, term: str, answers: Mapping[int, Sequence[bool]], sizes: Sequence[int]) -> Precision:
    """Estimate the precision of a label.

    Args:
        kind: Kind of the label.
        term: The label.
        answers: Answers for images that were drawn of each cluster.
        sizes: Images of each cluster.
    """
    num_C = np.array([len(of_one) for of_one in answers.values()])
    rate_C = np.array([np.mean(of_one) for of_one in answers.values()])
    share_C = np.array([sizes[cluster] for cluster in answers], np.float64)
    share_C /= share_C.sum()
    rate, effective = float(share_C @ rate_C), 1 / float(share_C**2 @ (1 / num_C))
    low, high = (float(np.asarray(end)) for end in wilson(rate, effective, _Z))
    num_right = sum(sum(of_one) for of_one in answers.values())
    return Precision(kind, term, num_right, int(num_C.sum()), rate, low, high)
