"""Last stage: the tables, from the kept vectors and scores of test images alone.

Usage: python pipelines/views/result_tables.py RUN [SEED...]

A figure is the mean over seeds, with an interval over patients (resampled, the same ones for every arm) and over seeds
(Student's t). Differences are paired by both.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from measured_plan import DETAIL, MEASURES, NUM_RESAMPLES, SEEDS, WITH, WITHOUT
from measuring import in_words, plain
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.patient_retrieval import rank
from medclip.auditing.checks.embeddings.probe import FOLDS, held_out, patient_folds
from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, grouped
from medclip.auditing.checks.embeddings.view_figures import KnownViews
from medclip.files.output import write_file
from medclip.statistics.cohort import Attribute
from medclip.statistics.estimate import Difference
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, bounded, difference, interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import benjamini_hochberg

START = "start"
Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Test:
    """The test images of a set, and what S runs of an arm make of them."""

    known: Mapping[str, Any]
    vectors_SND: Vectors
    scores_SN: NDArray[np.float64]

    def column(self, name: str) -> NDArray[Any]:
        """Return what is known of each image."""
        return np.array(self.known[name])

    def views(self) -> KnownViews:
        """Return the views of each breast."""
        breasts = list(zip(self.known["patients"], self.known["laterality"], strict=True))
        attributes = {"projection": self.attribute("projection")}
        return KnownViews(numbered(breasts), self.column("patients"), attributes)

    def attribute(self, name: str) -> Attribute:
        """Return what a probe reads."""
        groups, codes_N = np.unique(self.column(name), return_inverse=True)
        return Attribute(name, tuple(groups.tolist()), codes_N.astype(np.int16))

    def mean(
        self, of_run: Callable[[Vectors], tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]], kind: Any
    ) -> Resampled:
        """Average a ratio of sums over runs: of each (rows, values above the line, values below it)."""
        runs = [of_run(vectors_ND) for vectors_ND in self.vectors_SND]
        weights_PB = draw_weights(int(self.column("patients").max()) + 1, NUM_RESAMPLES, seed=0)
        each = [ratios(self.column("patients")[rows], weights_PB, a[None], b[None]) for rows, a, b in runs]
        values_S, rows = np.array([point[0] for point, _ in each]), runs[0][0]
        drawn_B, patients = np.mean([drawn[0] for _, drawn in each], axis=0), self.column("patients")[rows]
        common: dict[str, Any] = {"patients": effective_patients(patients)}
        if kind is share:
            common["cases"] = float(len(rows))
        return replace(kind(float(values_S.mean()), drawn_B, **common), runs_SI=values_S[:, None])

    def spread(self, *, over_others: bool) -> Resampled:
        """Measure how far the views of a breast are from each other."""
        views = self.views()

        def of_run(vectors_ND: Vectors) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
            rows, mean_2Q = views.distances(vectors_ND)
            return rows, mean_2Q[0], mean_2Q[1] if over_others else np.ones(len(rows))

        return self.mean(of_run, bounded)

    def first(self, right_NN: NDArray[np.bool_], wrong_NN: NDArray[np.bool_]) -> Resampled:
        """Measure how often the nearest image is an answer."""

        def of_run(vectors_ND: Vectors) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
            ranked = rank(-np.round(vectors_ND @ vectors_ND.T, 6), right_NN, wrong_NN)
            return ranked.queries_Q, (ranked.first_Q <= 1).astype(float), np.ones(len(ranked.queries_Q))

        return self.mean(of_run, share)

    def area(self, truth_N: NDArray[Any], scores_SN: NDArray[np.float64], rows_N: NDArray[np.bool_]) -> Resampled:
        """Measure the area of scores on some images; patients of the others are drawn and count nothing."""
        rows = np.flatnonzero(rows_N)
        test = HeldOut(truth_N[rows, None].astype(np.float32), self.column("patients")[rows], 1)
        weights_PB = draw_weights(int(self.column("patients").max()) + 1, NUM_RESAMPLES, seed=0)
        return figures(scores_SN[:, rows, None], test, weights_PB, ["macro_auroc"], runs=(len(scores_SN), 1))[
            "macro_auroc"
        ]

    def probed(self, name: str) -> Resampled:
        """Measure what a linear probe reads of patients that it has not seen; its folds are the same for all runs."""
        scores, attribute = [], self.attribute(name)
        for vectors_ND in self.vectors_SND:
            data = grouped(
                vectors_ND, self.column("patients"), attribute, most=len(vectors_ND), seed=0, fewest=FEWEST_PATIENTS
            )
            folds = patient_folds(data.codes_n, data.patients_n, FOLDS, 0)
            scores.append(held_out(data, folds, "logistic", 0)[:, 1])
        every = np.ones(len(attribute.codes_N), bool)
        return self.area(attribute.codes_N == 1, np.array(scores), every)


def of_breasts(test: Test) -> dict[str, Resampled]:
    """Return the measures of cdd_cesm."""
    patient_N, views = test.column("patients"), test.views()
    same_NN = patient_N == patient_N[:, None]
    breast_NN = views.thing_N == views.thing_N[:, None]
    other_NN = views.attributes["projection"].codes_N != views.attributes["projection"].codes_N[:, None]
    every_N, truth_N = np.ones(len(patient_N), bool), test.column("truth")
    return {
        "spread": test.spread(over_others=True),
        "recall": test.first(breast_NN & other_NN, ~breast_NN & other_NN),
        "malignancy": test.area(truth_N, test.scores_SN, every_N),
        "projection": test.probed("projection"),
        "re-identification": test.first(same_NN & ~breast_NN, ~same_NN),
        "distance": test.spread(over_others=False),
        "side": test.probed("laterality"),
        "any other image": test.first(same_NN & ~np.eye(len(patient_N), dtype=bool), ~same_NN),
    }


def of_sites(test: Test) -> dict[str, Resampled]:
    """Return the measures of nih_cxr and kermany_cxr."""
    source_N, truth_N = test.column("sources"), test.column("truth")

    def area(positives: str, negatives: str) -> Resampled:
        rows_N = ((source_N == positives) & (truth_N == 1)) | ((source_N == negatives) & (truth_N == 0))
        return test.area(truth_N, test.scores_SN, rows_N)

    sites = ("nih_cxr", "kermany_cxr")
    within = {f"within {site}": area(site, site) for site in sites}
    across = {f"{one} films against {other} normals": area(one, other) for one, other in (sites, sites[::-1])}
    return within | across | {"site": test.probed("sources")}


OF_SET: Mapping[str, Callable[[Test], dict[str, Resampled]]] = {"breasts": of_breasts, "sites": of_sites}


def read_test(folder: Path, names: Sequence[str]) -> Test:
    """Read the vectors and scores of some runs."""
    known = json.loads((folder / "known.json").read_text(encoding="utf-8"))
    runs = [np.load(folder / f"{name}.npz") for name in names]
    return Test(known, np.stack([run["vectors"] for run in runs]), np.stack([run["scores"] for run in runs]))


def _change(one: Difference) -> str:
    value, low, high = (f"{end:+.3f}".replace("-", "−") for end in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} ({low} to {high})"


def write_tables(run: Path, seeds: Sequence[int]) -> None:
    """Write figures.json and table.md, and print the latter."""
    apart: dict[tuple[str, str], Difference] = {}
    of_arms: dict[str, dict[str, dict[str, Resampled]]] = {}
    for name, measures in OF_SET.items():
        # The start is one pack, as often as there are seeds: no run makes it differ.
        arms = {START: [START] * len(seeds)} | {arm: [f"{arm}_{s}" for s in seeds] for arm in (WITHOUT, WITH)}
        of_arms[name] = {arm: measures(read_test(run / name / "vectors", runs)) for arm, runs in arms.items()}
        for measure in MEASURES[name]:
            apart[name, measure] = difference(of_arms[name][WITHOUT][measure], of_arms[name][WITH][measure])
    p_values = dict(zip(apart, benjamini_hochberg([one.p for one in apart.values()]), strict=True))
    parts = [f"Seeds {', '.join(map(str, seeds))}; p adjusted for all {len(apart)} comparisons.\n"]
    for name, of in of_arms.items():
        lines = ["| measure | start | without | with | with less without; p |", "|---|---|---|---|---|"]
        for measure in (*MEASURES[name], *DETAIL[name]):
            cells = [in_words(plain(interval_of(of[arm][measure]))) for arm in (START, WITHOUT, WITH)]
            key = (name, measure)
            if key in apart:
                cells.append(f"{_change(apart[key])}; {p_values[key]:.2g}")
            else:
                cells.append(f"{of[WITH][measure].value - of[WITHOUT][measure].value:+.3f}".replace("-", "−"))
            lines.append(f"| {name}: {measure} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    values = {
        f"{name}: {measure}": {arm: plain(interval_of(of[arm][measure])) for arm in of}
        for name, of in of_arms.items()
        for measure in of[WITH]
    }
    changes = {
        f"{name}: {measure}": plain(one) | {"p": one.p, "p_adjusted": float(p_values[name, measure])}
        for (name, measure), one in apart.items()
    }
    kept = {"seeds": list(seeds), "figures": values, "differences": changes}
    write_file(run / "figures.json", json.dumps(kept, indent=1) + "\n")
    write_file(run / "table.md", "\n".join(parts))
    print("\n".join(parts))


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or SEEDS)
