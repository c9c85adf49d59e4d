"""Claim: 1,000 patient resamples of 200,000 images x 14 labels x 12 groups take less than 120 s on 2 cores.

    python benchmarks/audit_bootstrap.py
    python benchmarks/audit_bootstrap.py --images 20000 --labels 4 --replicates 200

Measured are AUROC, TPR, FPR and ECE for everybody and each group. Patients have 1 to 8 images. Ours runs in a child
process that reports its wall and CPU time (drawing the patients included) and its high-water mark of memory. In this
process the same numbers are computed for a few resamples as one would write it: rows of the drawn patients repeated,
scikit-learn called for each group (`roc_auc_score`, `confusion_matrix`, and a vectorised ECE), and by fairlearn's
`MetricFrame(n_boot=...)`, one frame for each attribute. Both are extrapolated from the label in the middle to all
labels and resamples; fairlearn's time for one more resample is that of three minus that of one, halved. Ratios are of
CPU time, so that a busy machine changes them less. scikit-learn's values must be ours to 1e-12; AUROCs of resamples of
more than 50,000 images, which are from histograms of the scores, to a thirtieth of their standard error.
Ends with 1 above 120 s, above 3 GB, below 15 times scikit-learn, or below 100 times fairlearn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

GROUPS = {"sex": 2, "age": 4, "race": 3, "view": 3}
METRICS = ("auroc", "tpr", "fpr", "ece")
THRESHOLD = 0.25
LIMITS = {"seconds": 120.0, "gigabytes": 3.0, "scikit-learn": 15.0, "fairlearn": 100.0}


def make_cohort(num_images: int, num_labels: int):
    """Images of patients who have 1 to 8 each; prevalences of 2 to 40 %; scores that are alike within a patient."""
    from medclip.statistics.cohort import Attribute, Cohort, Label

    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, num_images)
    patients = np.repeat(np.arange(num_images), sizes)[:num_images].astype(np.int32)
    num_patients = int(patients[-1]) + 1
    attributes = []
    for name, count in GROUPS.items():
        per_image = name == "view"
        codes = rng.integers(0, count, num_images if per_image else num_patients)
        codes = codes if per_image else codes[patients]
        attributes.append(Attribute(name, tuple(f"{name} {k}" for k in range(count)), codes.astype(np.int16)))
    labels = []
    for i, prevalence in enumerate(np.linspace(0.02, 0.4, num_labels)):
        own = rng.normal(0, 0.7, num_patients)[patients]
        truth = own + rng.normal(0, 0.7, num_images)
        truth = (truth > np.quantile(truth, 1 - prevalence)).astype(float)
        logit = -1.5 + 1.3 * truth + own + rng.normal(0, 1, num_images)
        score = (1 / (1 + np.exp(-logit))).astype(np.float32).astype(float)
        labels.append(Label(f"finding {i}", score, truth))
    return Cohort(patients, tuple(labels), tuple(attributes))


def child(images: int, labels: int, replicates: int, threads: int, out: Path) -> None:
    """Run ours; print what it took, and leave the values of the label in the middle."""
    from medclip.statistics.resampling.bootstrap import evaluate_many
    from medclip.statistics.resampling.weights import draw_weights

    cohort = make_cohort(images, labels)
    thresholds = dict.fromkeys((label.name for label in cohort.labels), THRESHOLD)
    wall, cpu = time.perf_counter(), time.process_time()
    weights = draw_weights(cohort.num_patients, replicates, seed=0)
    found = evaluate_many(cohort, thresholds, weights, metrics=METRICS, threads=threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    first = found[cohort.labels[len(cohort.labels) // 2].name]
    drawn = {name: values[:, :8] for name, values in first.drawn.items()}
    np.savez(out, weights=weights[:, :8], error=first.drawn["auroc"].std(axis=1), **drawn)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "patients": cohort.num_patients}))


def ece(truth: np.ndarray, score: np.ndarray) -> float:
    bins = np.searchsorted(np.arange(1, 15) / 15, score, side="left")
    return float(np.abs(np.bincount(bins, score - truth)).sum() / len(score))


def by_scikit_learn(cohort, ours: dict[str, np.ndarray], resamples: int) -> tuple[float, float, float]:
    """Give CPU seconds for one label and one resample, and the largest differences to ours.

    They are of AUROCs, in standard errors, and of all else.
    """
    from sklearn.metrics import confusion_matrix, roc_auc_score

    label = cohort.labels[len(cohort.labels) // 2]
    worst, off, started = 0.0, 0.0, time.process_time()
    for b in range(resamples):
        rows = np.repeat(np.arange(len(cohort.patients_N)), ours["weights"][cohort.patients_N, b])
        truth, score = label.truth_N[rows], label.score_N[rows]
        masks = [np.ones(len(rows), bool)]
        for attribute in cohort.attributes:
            codes = attribute.codes_N[rows]
            masks += [codes == k for k in range(len(attribute.groups))]
        for g, mask in enumerate(masks):
            y, s = truth[mask], score[mask]
            (tn, fp), (fn, tp) = confusion_matrix(y, s >= THRESHOLD)
            found = {"auroc": roc_auc_score(y, s), "tpr": tp / (tp + fn), "fpr": fp / (fp + tn), "ece": ece(y, s)}
            worst = max(worst, *(abs(found[name] - ours[name][g, b]) for name in METRICS[1:]))
            off = max(off, abs(found["auroc"] - ours["auroc"][g, b]) / ours["error"][g])
    return (time.process_time() - started) / resamples, off, worst


def by_fairlearn(cohort) -> float:
    """Give CPU seconds for one label and one more resample, over all attributes."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
    from sklearn.metrics import roc_auc_score

    label = cohort.labels[len(cohort.labels) // 2]
    functions: dict[str, Callable[..., float]] = {
        "auroc": roc_auc_score,
        "tpr": lambda y, s: true_positive_rate(y, s >= THRESHOLD, pos_label=1),
        "fpr": lambda y, s: false_positive_rate(y, s >= THRESHOLD, pos_label=1),
        "ece": lambda y, s: ece(np.asarray(y), np.asarray(s)),
    }

    def run(num: int) -> float:
        started = time.process_time()
        for attribute in cohort.attributes:
            MetricFrame(
                metrics=functions,
                y_true=label.truth_N,
                y_pred=label.score_N,
                sensitive_features=attribute.codes_N,
                n_boot=num,
                ci_quantiles=[0.025, 0.975],
                random_state=0,
            )
        return time.process_time() - started

    return (run(3) - run(1)) / 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=3, help="resamples that scikit-learn computes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.images, chosen.labels, chosen.replicates, chosen.threads, chosen.child)
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ours.npz"
        command = [sys.executable, __file__, "--child", str(out)]
        for name in ("images", "labels", "replicates", "threads"):
            command += [f"--{name}", str(getattr(chosen, name))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            sys.exit(f"ours did not finish ({done.returncode}):\n{done.stderr[-2000:]}")
        took = json.loads(done.stdout.splitlines()[-1])
        with np.load(out) as file:
            ours = {name: file[name] for name in file.files}
    cohort = make_cohort(chosen.images, chosen.labels)
    times = chosen.labels * chosen.replicates
    sizes = (
        f"{chosen.images} images, {took['patients']} patients, {chosen.labels} labels, {sum(GROUPS.values())} groups"
    )
    print(f"{sizes}, {chosen.replicates} resamples")
    print(f"medclip       {took['wall']:9.1f} s wall, {took['cpu']:.1f} s CPU, {took['peak'] / 1e9:.2f} GB at most")
    single, off, worst = by_scikit_learn(cohort, ours, min(chosen.resamples, chosen.replicates, 8))
    print(f"scikit-learn  {single * times:9.0f} s CPU (extrapolated); largest difference of a value {worst:.1e}")
    print(f"  and of an AUROC {off:.1e} standard errors")
    frame = by_fairlearn(cohort)
    print(f"fairlearn     {frame * times:9.0f} s CPU (extrapolated)")
    ratios = {"scikit-learn": single * times / took["cpu"], "fairlearn": frame * times / took["cpu"]}
    for name, ratio in ratios.items():
        print(f"{name} / medclip: {ratio:.0f} (at least {LIMITS[name]:.0f})")
    print(f"load after {os.getloadavg()[0]:.1f}")
    kept = (
        took["wall"] <= LIMITS["seconds"]
        and took["peak"] <= LIMITS["gigabytes"] * 1e9
        and worst <= 1e-12
        and off <= 1 / 30
    )
    return int(not kept or any(ratio < LIMITS[name] for name, ratio in ratios.items()))


if __name__ == "__main__":
    raise SystemExit(main())
