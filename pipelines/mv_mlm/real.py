"""What one view, two views and the examination tell on the shared mammography sets, women held out. The sets are small.

Usage: python pipelines/mv_mlm/real.py SHARED_DATA RUN            what is missing, then the table
       python pipelines/mv_mlm/real.py SHARED_DATA RUN --tiny     a few steps of everything: does it run?

Kill it anywhere and call it again. It writes RUN/figures.json and RUN/table.md; about 15 minutes of one core. All
choices stand in measured_plan.py.

Women are divided into folds; of each fold a model is pretrained on the other women (images with what was said of them,
no class label of cdd_cesm), so every woman is tested once, by a model that did not see her. cdd_cesm has subtracted
views of 256 px and the radiologist's words; mini_mias has one oblique view of each breast, of which density is asked;
ddsm_4view (six benign examinations) only helps to train.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured_plan as plan
import numpy as np
import torch
from exams import Exams, encode
from numpy.typing import NDArray

from medclip.evaluation.label_retrieval import retrieval
from medclip.shards.writing.build import Form, build_shards
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import difference, interval_of

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
from baselines import linear_probe  # pyright: ignore[reportMissingImports]
from measuring import in_words, measure, plain, read_rows, trained, write_rows  # pyright: ignore[reportMissingImports]

KEY = b"medclip shared mammograms".ljust(32)
CLASSES = ("normal", "benign", "malignant")
DENSITIES = ("fatty", "fatty_glandular", "dense_glandular")
NORMAL = "No mass or non mass enhancement"
"""What is written of every normal image: no report to look for."""
VAL_SHARE = 0.15
TINY_STEPS = 2
Data = tuple[NDArray[np.float32], NDArray[np.int64], list[str]]
"""Vectors, classes and women."""


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    data: Path
    run: Path
    tiny: bool = False

    def shards(self, fold: int) -> Path:
        """Of a fold."""
        return self.run / f"shards-{fold}"

    def exams(self, fold: int, split: str) -> Exams:
        """Return the examinations of a split with the model of its fold."""
        pack = self.run / f"pretrain-{fold}" / "pack"
        return encode(pack, self.shards(fold), split, self.run / "vectors" / f"{split}-{fold}.npy")


def rows_of(data: Path) -> list[dict[str, str]]:
    """Read the three sets as one table, without splits."""
    rows: list[dict[str, str]] = []

    def add(name: str, row: Mapping[str, str], **more: str) -> None:
        common = {"file": f"{name}/{row['file']}", "modality": "mammography", "source": name, "license": "see the set"}
        rows.append({"laterality": row["laterality"], "view": row["view"], **common, **more})

    for row in read_rows(data / "cdd_cesm" / "labels.csv"):
        woman = f"cdd_cesm:{row['patient_id']}"
        more = {"caption": row["findings"], "label:mammography_malignancy": row["pathology"].lower()}
        add("cdd_cesm", row, patient=woman, study=woman, view_kind="subtracted", **more)
    for row in read_rows(data / "mini_mias" / "labels.csv"):
        woman = f"mini_mias:{row['patient_id']}"
        density = {"label:breast_density": row["density"].replace("-", "_")}
        add("mini_mias", row, patient=woman, study=woman, view_kind="standard", **density)
    for row in read_rows(data / "ddsm_4view" / "labels.csv"):
        woman = f"ddsm_4view:{row['exam']}"
        composition = {"2": "scattered_fibroglandular", "3": "heterogeneously_dense"}[row["density"]]
        more = {"label:breast_composition": composition}
        add("ddsm_4view", row, patient=woman, study=woman, view_kind="standard", **more)
    return rows


def divided(rows: list[dict[str, str]], fold: int) -> list[dict[str, str]]:
    """Name the split of each row: women of the fold are for testing, some of the others for validation."""
    women = sorted({row["patient"] for row in rows})
    order = np.random.default_rng(plan.SEED).permutation(len(women))
    fold_of = {women[i]: place % plan.FOLDS for place, i in enumerate(order)}
    others = [women[i] for i in order if fold_of[women[i]] != fold]
    val = set(others[: round(VAL_SHARE * len(others))])

    def split(woman: str) -> str:
        return "test" if fold_of[woman] == fold else "val" if woman in val else "train"

    return [row | {"split": split(row["patient"])} for row in rows]


def prepare(place: Place, fold: int) -> None:
    """Build the shards of a fold, and pretrain."""
    shards = place.shards(fold)
    if not (shards / "index.json").is_file():
        rows = divided(rows_of(place.data), fold)
        table = write_rows(place.run / f"table-{fold}.csv", rows)
        build_shards(table, shards, Form(max_side=288, key=KEY, group="exam"), images=place.data)
    recipe = plan.recipe(str(shards), f"mv-mlm-shared-{fold}", place.tiny) | {"model": dict(plan.REAL_MODEL)}
    limits = {"max_steps": TINY_STEPS} if place.tiny else {"epochs": plan.REAL_EPOCHS, "batch_size": plan.REAL_BATCH}
    recipe["train"] = recipe["train"] | limits | {"lr": plan.REAL_LR}
    trained(place.run / f"pretrain-{fold}", recipe)


def classes_of(place: Place) -> dict[str, Any]:
    """Ask for normal, benign or malignant, of a breast from one view and from two, and of the examination."""
    kinds: dict[str, Callable[[Exams, int, str], Any]] = {
        "one view (CC)": lambda exams, n, side: exams.one(n, side, "CC"),
        "one view (MLO)": lambda exams, n, side: exams.one(n, side, "MLO"),
        "two views": lambda exams, n, side: exams.fused(n, side),
    }
    figures = {
        name: _probed(place, lambda exams, of=of: _breasts(exams, of), len(CLASSES)) for name, of in kinds.items()
    }
    figures["examination"] = _probed(place, _examinations, len(CLASSES))
    areas = {name: _area(truth, p_NC, women) for name, (truth, p_NC, women) in figures.items()}
    malignant = {
        name: measured(np.asarray(truth == 2, np.int64), p_NC[:, 2], women, ["auroc"])["auroc"]
        for name, (truth, p_NC, women) in figures.items()
    }
    best = max(("one view (CC)", "one view (MLO)"), key=lambda name: areas[name].value)
    return {
        "counts": {name: np.bincount(truth, minlength=3).tolist() for name, (truth, _, _) in figures.items()},
        "macro_auroc": {name: plain(interval_of(area)) for name, area in areas.items()},
        "malignant_auroc": {name: plain(interval_of(area)) for name, area in malignant.items()},
        "two_minus_better": plain(difference(areas[best], areas["two views"])),
        "better": best,
    }


def _breasts(exams: Exams, vector_of: Callable[[Exams, int, str], Any]) -> Data:
    """Take the breasts with both views, so that all ways of looking answer for the same ones."""
    vectors, truth, women = [], [], []
    for n, woman in enumerate(exams.patients):
        for side in ("R", "L"):
            own = [
                labels["mammography_malignancy"]
                for labels, view in zip(exams.view_labels[n], exams.views[n], strict=True)
                if view.side == side and "mammography_malignancy" in labels
            ]
            if len(own) == 2:
                vectors.append(vector_of(exams, n, side))
                truth.append(max(map(CLASSES.index, own)))
                women.append(woman)
    return np.stack(vectors), np.array(truth, np.int64), women


def _examinations(exams: Exams) -> Data:
    """Take women of whom both breasts were seen; the worse one counts."""
    vectors, truth, women = [], [], []
    for n, woman in enumerate(exams.patients):
        label = exams.labels[n].get("mammography_malignancy")
        if label is not None and {view.side for view in exams.views[n]} == {"L", "R"}:
            vectors.append(exams.fused(n))
            truth.append(CLASSES.index(label))
            women.append(woman)
    return np.stack(vectors), np.array(truth, np.int64), women


def densities_of(place: Place) -> dict[str, Any]:
    """Ask for density, of an image and of the woman's two oblique images."""

    def images(exams: Exams) -> Data:
        rows = [
            (exams.vectors[n][i], DENSITIES.index(labels["breast_density"]), woman)
            for n, woman in enumerate(exams.patients)
            for i, labels in enumerate(exams.view_labels[n])
            if "breast_density" in labels
        ]
        return np.stack([v for v, _, _ in rows]), np.array([t for _, t, _ in rows], np.int64), [w for _, _, w in rows]

    def women(exams: Exams) -> Data:
        rows = [
            (exams.fused(n), DENSITIES.index(labels["breast_density"]), exams.patients[n])
            for n, labels in enumerate(exams.labels)
            if "breast_density" in labels
        ]
        return np.stack([v for v, _, _ in rows]), np.array([t for _, t, _ in rows], np.int64), [w for _, _, w in rows]

    figures = {"one image (MLO)": _probed(place, images, 3), "both breasts (MLO)": _probed(place, women, 3)}
    return {
        "counts": {name: np.bincount(truth, minlength=3).tolist() for name, (truth, _, _) in figures.items()},
        "macro_auroc": {name: plain(interval_of(_area(*values))) for name, values in figures.items()},
    }


def _probed(
    place: Place, data_of: Callable[[Exams], Data], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Fit a logistic regression on frozen vectors in each fold; returns truth, probabilities [N, C] and women."""
    truths, answers, women = [], [], []
    for fold in range(plan.FOLDS):
        train, val, test = (data_of(place.exams(fold, split)) for split in ("train", "val", "test"))
        answers.append(linear_probe(train[:2], val[:2], test[0], num_classes))
        truths.append(test[1])
        women += test[2]
    return np.concatenate(truths), np.concatenate(answers).astype(np.float64), women


def _area(truth: NDArray[np.int64], p_NC: NDArray[np.float64], women: list[str]) -> Any:
    logits_NC = np.log(np.clip(p_NC, 1e-6, 1))
    return measured(truth, logits_NC, women, ["macro_auroc"], num_resamples=plan.NUM_RESAMPLES)["macro_auroc"]


def retrieved(place: Place) -> dict[str, Any]:
    """Look for an image's report, and for the other view of a breast, among the test women of each fold."""
    figures: dict[str, Any] = {"report": [], "other view": []}
    for fold in range(plan.FOLDS):
        exams = place.exams(fold, "test")
        images, texts, women = [], [], []
        for n, woman in enumerate(exams.patients):
            for vector, own in zip(exams.vectors[n], exams.texts[n], strict=True):
                if own and own[0] != NORMAL:
                    images.append(vector)
                    texts.append(own[0])
                    women.append(woman)
        gallery = sorted(set(texts))
        vectors = exams.model.encode_text(gallery)
        _, one = retrieval(
            np.stack(images), vectors, texts, gallery, ks=(1, 5), image_patients=women, text_patients=gallery
        )
        figures["report"].append(_recalls(one, len(gallery)))
        pairs = [
            (cc, mlo, (woman, side), woman)
            for n, woman in enumerate(exams.patients)
            for side in ("R", "L")
            if (cc := exams.one(n, side, "CC")) is not None and (mlo := exams.one(n, side, "MLO")) is not None
        ]
        cc_ND, mlo_ND = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        keys, of_whom = [pair[2] for pair in pairs], [pair[3] for pair in pairs]
        _, one = retrieval(cc_ND, mlo_ND, keys, keys, ks=(1, 5), image_patients=of_whom, text_patients=of_whom)
        figures["other view"].append(_recalls(one, len(keys)))
    return figures


def _recalls(one: Any, num: int) -> dict[str, Any]:
    """Return recalls; chance is that of one right answer among all (the woman's other breast is left out)."""
    return {
        "num_queries": one.num_queries,
        "gallery": num,
        "median_rank": one.median_rank,
        "recall": {str(k): plain(e) | {"chance": round(min(1.0, k / num), 4)} for k, e in one.intervals.items()},
    }


STAGES: Mapping[str, Callable[[Place], dict[str, Any]]] = {
    "classes": classes_of,
    "densities": densities_of,
    "retrieval": retrieved,
}


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""

    def text(e: Mapping[str, float]) -> str:
        return in_words(e, digits=2)

    lines = ["| what | value (95 % interval) |", "|---|---|"]
    for stage, what in (("classes", "normal, benign, malignant"), ("densities", "density")):
        for name, e in figures[stage]["macro_auroc"].items():
            about = f"{sum(figures[stage]['counts'][name])} answers"
            lines.append(f"| {what}, macro AUC, {name} ({about}) | {text(e)} |")
    for name, e in figures["classes"]["malignant_auroc"].items():
        lines.append(f"| malignant against the rest, AUC, {name} | {text(e)} |")
    better = figures["classes"]["better"]
    lines.append(
        f"| two views minus the better one ({better}), macro AUC | {text(figures['classes']['two_minus_better'])} |"
    )
    for name, folds in figures["retrieval"].items():
        for fold, one in enumerate(folds):
            for k, e in one["recall"].items():
                about = f"{one['num_queries']} images, {one['gallery']} to choose from"
                lines.append(f"| {name}, recall at {k}, fold {fold} ({about}; chance {e['chance']:.2f}) | {text(e)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = Place(args.data.resolve(), args.run.resolve(), args.tiny)
    for fold in range(plan.FOLDS):
        prepare(place, fold)
    measure(place.run, {name: lambda stage=stage: stage(place) for name, stage in STAGES.items()}, table_of)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
