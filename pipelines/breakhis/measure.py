"""BreakHis by patient: towers, frozen features and descriptors in one table, with intervals over patients.

Usage: python pipelines/breakhis/measure.py FOLDER RUN [--protocol patient_cv] [--towers NAME ...] [--encoders NAME ...]
       [--magnifications 40 100 200 400 all] [--tasks malignancy subtype] [--tiny]

FOLDER holds BreakHis. Towers are names of timm, which begin with random weights, or packs (`medclip models import`);
encoders are packs, `random:TOWER` or `imagenet:tf_efficientnet_lite0`. What is trained on one magnification is tested
on it; what is trained on `all` is tested on each. Kill it anywhere and call it again: answers and features are kept.
It writes RUN/figures.json and RUN/table.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import encoders
import measured_plan as plan
import numpy as np
from figures import (
    ECE,
    RATES,
    Tested,
    averaged,
    calibration,
    joined,
    joint_binary,
    lock_threshold,
    measure_tested,
    numbers_of,
    written,
)
from protocols import LEAKAGE, PROTOCOLS, Protocol, Sides
from texture import COLUMNS, DESCRIPTORS, describe_files, fit_probe, gives_probabilities, probe_scores
from towers import CLASSES, Division, fine_tuned, kind_of, label_of, worded
from tree import BENIGN, MAGNIFICATIONS, BreakHisImage, count_table, read_breakhis

from medclip.files.output import write_file
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of

ALL = "all"
COMMONEST = "the commonest class"
_QUICK = 20
_FEWEST = 2


@dataclass(frozen=True)
class Plan:
    """What is measured, and where.

    Attributes:
        folder: BreakHis.
        run: Where everything is kept.
        protocol: How it is divided.
        towers: Fine-tuned.
        encoders: Frozen.
        scopes: Magnifications that models are trained on, "all" among them.
        tasks: "malignancy", "subtype".
        num_resamples: Of patients.
        seed: Of the divisions.
        overrides: What to change in the recipe, by section and key.
    """

    folder: Path
    run: Path
    protocol: Protocol
    towers: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    scopes: tuple[str, ...] = (*map(str, MAGNIFICATIONS), ALL)
    tasks: tuple[str, ...] = tuple(CLASSES)
    num_resamples: int = 2000
    seed: int = 0
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Way:
    """What one way answers, in all divisions of a scope."""

    name: str
    kind: str
    """cnn, transformer, frozen, descriptor, words or baseline."""
    task: str
    trained_on: str
    tested: Tested
    magnification_N: Any
    val_rate: float
    """Balanced accuracy on the validation images, mean over divisions: what the best CNN is chosen by."""


def divisions_of(job: Plan, images: Sequence[BreakHisImage], sides: Sequence[Sides], scope: str) -> list[Division]:
    """Return the divisions of one magnification, or of all."""
    kept = [i for i, image in enumerate(images) if scope in (ALL, str(image.magnification))]
    divisions = []
    for number, side in enumerate(sides):
        rows = [i for i in kept if side[i]]
        divisions.append(
            Division(
                f"{scope}-{number}",
                tuple(images[i] for i in rows),
                side[rows],
                job.folder,
                job.run,
                job.protocol.leaks,
                job.overrides,
            )
        )
    return divisions


def answers_of(division: Division, task: str, val: Any, test: Any, *, probability: bool = True) -> tuple[Tested, float]:
    """Return what was tested in one division, with the threshold that its validation patients chose."""
    truth = {s: np.array([label_of(division.images[i], task) for i in division.rows(s)]) for s in ("val", "test")}
    patients = tuple(division.images[i].patient for i in division.rows("test"))
    locked = None
    if val.shape[1] == len(CLASSES["malignancy"]):
        threshold = lock_threshold(val[:, 1] - val[:, 0], truth["val"])
        locked = np.full(len(patients), threshold)
    right = val.argmax(axis=1) == truth["val"]
    recalls = [right[truth["val"] == c].mean() for c in np.unique(truth["val"])]
    return Tested(patients, truth["test"], test, locked, probability=probability), float(np.mean(recalls))


def _joined(job: Plan, parts: Sequence[tuple[Tested, float]], divisions: Sequence[Division]) -> tuple[Any, Any, float]:
    tested = [part for part, _ in parts]
    rate = float(np.mean([val_rate for _, val_rate in parts]))
    magnification = [[d.images[i].magnification for i in d.rows("test")] for d in divisions]
    if job.protocol.averaged:
        return averaged(tested), np.array(magnification[0]), rate
    return joined(tested), np.concatenate(magnification), rate


def tower_ways(job: Plan, divisions: Sequence[Division], scope: str) -> Iterator[Way]:
    """Yield the answers of fine-tuned towers; of one with eight classes also what they add up to for malignant."""
    for tower in job.towers:
        name, kind = Path(tower).name, kind_of(tower)
        for task in job.tasks:
            answers = [fine_tuned(division, tower, task) for division in divisions]
            parts = [answers_of(d, task, a["val"], a["test"]) for d, a in zip(divisions, answers, strict=True)]
            yield Way(name, kind, task, scope, *_joined(job, parts, divisions))
            if task == "subtype":
                both = [{s: joint_binary(a[s], len(BENIGN)) for s in ("val", "test")} for a in answers]
                parts = [answers_of(d, "malignancy", a["val"], a["test"]) for d, a in zip(divisions, both, strict=True)]
                yield Way(f"{name}, joint head", kind, "malignancy", scope, *_joined(job, parts, divisions))


def baseline_ways(job: Plan, divisions: Sequence[Division], scope: str) -> Iterator[Way]:
    """Yield the answer without looking: the class that most of the training images have."""
    for task in job.tasks:
        parts = []
        for division in divisions:
            own = [label_of(division.images[i], task) for i in division.rows("train")]
            answer_C = np.eye(len(CLASSES[task]))[np.bincount(own, minlength=len(CLASSES[task])).argmax()]
            val, test = (np.tile(answer_C, (len(division.rows(s)), 1)) for s in ("val", "test"))
            parts.append(answers_of(division, task, val, test, probability=False))
        yield Way(COMMONEST, "baseline", task, scope, *_joined(job, parts, divisions))


def probe_ways(job: Plan, images: Sequence[BreakHisImage], divisions: Sequence[Division], scope: str) -> Iterator[Way]:
    """Yield the answers of classical classifiers on descriptors and on frozen features, and of words."""
    files = [job.folder / image.file for image in images]
    place_of = {image.file: i for i, image in enumerate(images)}
    rows_of = [
        {s: [place_of[d.images[i].file] for i in d.rows(s)] for s in ("train", "val", "test")} for d in divisions
    ]
    sources: list[tuple[str, str, Any, Any]] = []
    for name in DESCRIPTORS:
        kept = job.run / "features" / f"{name.split(',')[0]}.npy"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, describe_files(name, files))
        sources.append((name, "descriptor", np.load(kept), None))
    for name in job.encoders:
        model = encoders.load_encoder(name, job.run)
        kept = job.run / "features" / f"{Path(name).name.replace(':', '-')}.npy"
        sources.append((Path(name).name, "frozen", encoders.embed_files(model, files, kept), model))
    for name, kind, features_ND, model in sources:
        for task in job.tasks:
            num_classes = len(CLASSES[task])
            for classifier, standardize in COLUMNS:
                parts, has_p = [], True
                for division, rows in zip(divisions, rows_of, strict=True):
                    train = rows["train"]
                    truth_N = np.array([label_of(images[i], task) for i in train])
                    patients = [images[i].patient for i in train]
                    fitted = fit_probe(classifier, standardize, features_ND[train], truth_N, patients)
                    val, test = (probe_scores(fitted, features_ND[rows[s]], num_classes) for s in ("val", "test"))
                    has_p = has_p and gives_probabilities(fitted)
                    parts.append(answers_of(division, task, val, test, probability=has_p))
                label = f"{name}, {classifier}{', standardised' if standardize else ''}"
                yield Way(label, kind, task, scope, *_joined(job, parts, divisions))
            if model is not None and model.has_text:
                parts = [
                    answers_of(d, task, *(worded(model, features_ND[rows[s]], task) for s in ("val", "test")))
                    for d, rows in zip(divisions, rows_of, strict=True)
                ]
                yield Way(f"{name}, words", "words", task, scope, *_joined(job, parts, divisions))


def rows_of_table(job: Plan, ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Measure every way at every magnification that it was tested at, and compare it with the best CNN there."""
    rows: list[dict[str, Any]] = []
    figures: list[dict[str, Resampled]] = []
    patients: list[tuple[str, ...]] = []
    for way in ways:
        scopes = sorted(set(way.magnification_N.tolist()))
        tested_at = [str(m) for m in scopes] + ([ALL] if len(scopes) > 1 else [])
        for at in tested_at:
            part = way.tested if at == ALL else way.tested.of(way.magnification_N == int(at))
            measured = measure_tested(part, num_resamples=job.num_resamples)
            error = calibration(part, num_resamples=job.num_resamples)
            row: dict[str, Any] = {
                "task": way.task,
                "magnification": at,
                "way": way.name,
                "kind": way.kind,
                "trained_on": way.trained_on,
                "val_balanced_accuracy": round(way.val_rate, 4),
                "images": len(part.truth_N),
                "patients": len(set(part.patients)),
                "classes": len(set(part.truth_N.tolist())),
                "figures": {name: numbers_of(interval_of(one)) for name, one in measured.items()}
                | ({} if error is None else {ECE: numbers_of(error)}),
                "of_divisions": _of_divisions(part),
            }
            rows.append(row)
            figures.append(measured)
            patients.append(part.patients)
    for row, measured, whose in zip(rows, figures, patients, strict=True):
        best = best_cnn(rows, row["task"], row["magnification"])
        if best is None or rows[best] is row:
            continue
        assert whose == patients[best], "rows of a task and a magnification have the same images, in the same order"
        row["less_best_cnn"] = {
            name: numbers_of(difference(figures[best][name], one)) | {"of": rows[best]["way"]}
            for name, one in measured.items()
            if name in figures[best]
        }
    return rows


def best_cnn(rows: Sequence[Mapping[str, Any]], task: str, magnification: str) -> int | None:
    """Return which row is the best CNN of a task and a magnification, by its validation patients alone."""
    own = [
        n
        for n, row in enumerate(rows)
        if row["kind"] == "cnn" and (row["task"], row["magnification"]) == (task, magnification)
    ]
    return max(own, key=lambda n: rows[n]["val_balanced_accuracy"], default=None)


def _of_divisions(tested: Tested) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of image rate and recognition rate over divisions: the authors' form."""
    if tested.division_N is None or len(set(tested.division_N.tolist())) < _FEWEST:
        return {}
    each = [
        measure_tested(tested.of(tested.division_N == number), num_resamples=_QUICK)
        for number in sorted(set(tested.division_N.tolist()))
    ]
    values = {name: [one[name].value for one in each] for name in ("image_rate", "prr")}
    return {
        n: {"mean": round(float(np.mean(v)), 4), "sd": round(float(np.std(v, ddof=1)), 4)} for n, v in values.items()
    }


def table_of(job: Plan, rows: Sequence[Mapping[str, Any]], images: Sequence[BreakHisImage]) -> str:
    """Write everything as Markdown."""
    lines = [count_table(images), f"Protocol: {job.protocol.name}, {job.protocol.title}. 95 % intervals over patients."]
    if job.protocol.leaks:
        lines += ["", LEAKAGE]
    for task in job.tasks:
        for at in (*map(str, MAGNIFICATIONS), ALL):
            own = [row for row in rows if (row["task"], row["magnification"]) == (task, at)]
            if not own:
                continue
            first = own[0]
            lines += [
                "",
                f"## {task}, {at if at == ALL else at + '×'}",
                "",
                f"{first['images']} tested images of {first['patients']} patients, {first['classes']} classes. Chance: "
                f"balanced accuracy {1 / first['classes']:.3f}, AUC 0.5.",
                "",
                "| way | trained on | " + " | ".join([*RATES.values(), "calibration error"]) + " | PRR of divisions, "
                "mean ± sd | PRR less that of the best CNN |",
                "|" + "---|" * (len(RATES) + 5),
            ]
            for row in own:
                cells = [written(row["figures"].get(name)) for name in (*RATES, ECE)]
                spread = row["of_divisions"].get("prr")
                sd = f"{spread['mean']:.3f} ± {spread['sd']:.3f}" if spread else ""
                apart = written((row.get("less_best_cnn") or {}).get("prr"))
                lines.append(f"| {row['way']} | {row['trained_on']} | {' | '.join(cells)} | {sd} | {apart} |")
    return "\n".join([*lines, "", f"Beside it: {plan.PUBLISHED}"]) + "\n"


def measure_breakhis(job: Plan) -> str:
    """Measure everything that is missing, write the figures and return the table."""
    images, rejects = read_breakhis(job.folder)
    if rejects:
        print(f"{len(rejects)} files are left out, such as {rejects[0][0]}: {rejects[0][1]}.", flush=True)
    images = [image for image in images if image.subtype in job.protocol.classes]
    sides = job.protocol.divisions(images, job.seed)
    own = job.protocol.magnifications
    scopes = [s for s in job.scopes if own is None or s in map(str, own)]
    ways: list[Way] = []
    for scope in scopes:
        divisions = divisions_of(job, images, sides, scope)
        ways += baseline_ways(job, divisions, scope)
        ways += tower_ways(job, divisions, scope)
        ways += probe_ways(job, images, divisions, scope)
        print(f"magnification {scope}: done", flush=True)
    rows = rows_of_table(job, ways)
    facts = {"protocol": job.protocol.name, "seed": job.seed, "published": plan.PUBLISHED, "rows": rows}
    write_file(job.run / "figures.json", json.dumps(facts, indent=1) + "\n")
    table = table_of(job, rows, images)
    write_file(job.run / "table.md", table)
    return table


def main(arguments: list[str]) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="patient_cv")
    parser.add_argument("--towers", nargs="*", default=[])
    parser.add_argument("--encoders", nargs="*", default=[])
    parser.add_argument("--magnifications", nargs="*", default=[*map(str, MAGNIFICATIONS), ALL])
    parser.add_argument("--tasks", nargs="*", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="a few steps and resamples: does it run?")
    args = parser.parse_args(arguments)
    (run := args.run.resolve()).mkdir(parents=True, exist_ok=True)
    overrides: dict[str, dict[str, Any]] = {"train": {"device": args.device}}
    if args.tiny:
        overrides["train"] |= {"max_steps": 2, "epochs": 1, "batch_size": 8, "warmup_steps": 1, "threads": 1}
        overrides["model"] = {"size_px": 64}
    job = Plan(
        args.folder.resolve(),
        run,
        PROTOCOLS[args.protocol],
        tuple(args.towers),
        tuple(args.encoders),
        tuple(args.magnifications),
        tuple(args.tasks),
        seed=args.seed,
        overrides=overrides,
    )
    print(measure_breakhis(replace(job, num_resamples=100) if args.tiny else job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
