"""What several views, pretraining and a loss that knows of censoring bring, on a simulated cohort with a known truth.

Usage: python pipelines/mv_mlm/measure.py RUN            every stage that is missing, then the table
       python pipelines/mv_mlm/measure.py RUN --tiny     a few women and steps of everything: does it run?

Kill it anywhere and call it again: trainings go on where they stopped, and a stage that is done is kept. It writes
RUN/figures.json and RUN/table.md; about 85 minutes of one core. All choices stand in measured_plan.py.

1. **Views**: malignancy of a breast, by logistic regression on frozen vectors of its CC, of its MLO, and of what the
   model fuses both to. The better single view is chosen on validation women.
2. **Pretraining**: malignancy of an examination with a tenth of the labels (and, with one draw each, with others),
   fine-tuned from the pretrained model and from nothing, the same steps.
3. **Risk**: the additive hazard head on frozen vectors of examinations without a cancer, with the loss over known
   years, and with one that takes whoever left for healthy; beside the oracle that knows what was planted.

Differences are paired over the same test women, whose resamples both figures share.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import measured_plan as plan
import numpy as np
import torch
from exams import Exams, encode
from numpy.typing import NDArray
from simulate import HANGING, write_cohort

from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.api.captions import captions
from medclip.models.packs.pack import pack_card
from medclip.objectives.hazard import AdditiveHazard, hazard_targets, masked_hazard_loss
from medclip.shards.writing.build import Form, build_shards
from medclip.statistics.cohort import Cohort, Risk
from medclip.statistics.metrics.classification import measured
from medclip.statistics.metrics.concordance import concordance
from medclip.statistics.resampling.resampled import Resampled, change, difference, interval_of, mean
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.yearly_risk import column_of, yearly_figures

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
from baselines import linear_probe  # pyright: ignore[reportMissingImports]
from measuring import in_words, measure, plain, read_rows, trained, write_rows  # pyright: ignore[reportMissingImports]

KEY = b"medclip simulated mammograms".ljust(32)
ARMS = ("scratch", "pretrained")
YEARS = (1, 2, 3, 4, 5)
DETECTED_MONTHS = 6
TINY_WOMEN, TINY_STEPS = (30, 15, 45), 2
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    run: Path
    tiny: bool = False

    @property
    def women(self) -> tuple[int, int, int]:
        """For training, validation and testing."""
        return TINY_WOMEN if self.tiny else plan.WOMEN

    @property
    def shards(self) -> Path:
        """Of all examinations."""
        return self.run / "shards"

    @property
    def pack(self) -> Path:
        """Of the pretraining."""
        return self.run / "pretrain" / "pack"

    def exams(self, split: str, pack: Path | None = None) -> Exams:
        """Return the examinations of a split, encoded by the pretrained model (which is kept) or by another."""
        kept = self.run / "vectors" / f"{split}.npy" if pack is None else None
        return encode(pack or self.pack, self.shards, split, kept)

    def followed(self, split: str) -> Exams:
        """Return the examinations of the women that the risk head learns from."""
        return encode(self.pack, self.run / "followed_shards", split, self.run / "vectors" / f"followed_{split}.npy")

    @cached_property
    def truth(self) -> dict[str, dict[str, float]]:
        """What was planted in each woman, by the hashes of her files."""
        by_hash: dict[str, dict[str, float]] = {}
        for cohort in (self.run / "cohort", self.run / "followed"):
            rows = read_rows(cohort / "truth.csv")
            for number, row in enumerate(rows):
                values = {k: float(v or "nan") for k, v in row.items() if k not in ("patient", "split")}
                for side, position in HANGING:
                    path = cohort / "images" / f"{number:05}_{side}_{position}.png"
                    by_hash[hashlib.sha256(path.read_bytes()).hexdigest()] = values
        return by_hash


def prepare(place: Place) -> None:
    """Write the cohort, its reports and shards, and pretrain."""
    cohort = place.run / "cohort"
    if not (place.shards / "index.json").is_file():
        table = write_cohort(cohort, sum(place.women), seed=plan.SEED, height=plan.HEIGHT_PX, sizes=place.women)
        captions(
            table,
            cohort / "reports.csv",
            from_="mammography",
            num_captions=plan.REPORTS,
            seed=plan.SEED,
            overwrite=True,
        )
        build_shards(cohort / "reports.csv", place.shards, Form(max_side=plan.HEIGHT_PX, key=KEY, group="exam"))
    shards = place.run / "followed_shards"
    if not (shards / "index.json").is_file():
        sizes = TINY_WOMEN[:2] if place.tiny else plan.FOLLOWED
        how = {"seed": plan.SEED + 1, "height": plan.HEIGHT_PX, "sizes": sizes}
        table = write_cohort(place.run / "followed", sum(sizes), **how)
        build_shards(table, shards, Form(max_side=plan.HEIGHT_PX, key=KEY, group="exam"))
    trained(place.run / "pretrain", plan.recipe(str(place.shards), "mv-mlm-simulated", place.tiny))


def stage_views(place: Place) -> dict[str, Any]:
    """Compare one view with two, by breast."""
    kinds: dict[str, Callable[[Exams, int, str], Any]] = {
        "CC": lambda exams, n, side: exams.one(n, side, "CC"),
        "MLO": lambda exams, n, side: exams.one(n, side, "MLO"),
        "both, fused": lambda exams, n, side: exams.fused(n, side),
    }
    splits = {split: place.exams(split) for split in ("train", "val", "test")}
    answers, chosen_by = {}, {}
    for name, vector_of in kinds.items():
        data = {split: _breasts(exams, vector_of) for split, exams in splits.items()}
        p_val = linear_probe(data["train"][:2], data["val"][:2], data["val"][0], 2)[:, 1]
        chosen_by[name] = measured(data["val"][1], p_val, data["val"][2], ["auroc"])["auroc"].value
        answers[name] = linear_probe(data["train"][:2], data["val"][:2], data["test"][0], 2)[:, 1]
    _, truth, women = _breasts(splits["test"], kinds["CC"])
    answers["both, mean of two answers"] = (answers["CC"] + answers["MLO"]) / 2
    areas = {
        n: measured(truth, p, women, ["auroc"], num_resamples=plan.NUM_RESAMPLES)["auroc"] for n, p in answers.items()
    }
    best = max(("CC", "MLO"), key=lambda name: chosen_by[name])
    return {
        "num_breasts": len(truth),
        "num_malignant": int(truth.sum()),
        "best_single_view": best,
        "auroc": {name: plain(interval_of(area)) for name, area in areas.items()},
        "fused_minus_best": plain(difference(areas[best], areas["both, fused"])),
        "fused_minus_mean": plain(difference(areas["both, mean of two answers"], areas["both, fused"])),
    }


def _breasts(
    exams: Exams, vector_of: Callable[[Exams, int, str], Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Return vectors, whether the breast is malignant, and women, of all breasts."""
    vectors, truth, women = [], [], []
    for n, patient in enumerate(exams.patients):
        for side in ("R", "L"):
            own = [v for v, view in zip(exams.view_labels[n], exams.views[n], strict=True) if view.side == side]
            vectors.append(vector_of(exams, n, side))
            truth.append(own[0]["mammography_malignancy"] == "malignant")
            women.append(patient)
    return np.stack(vectors), np.array(truth, np.int64), women


def stage_labels(place: Place) -> dict[str, Any]:
    """Fine-tune with a tenth of the labels, from the pretrained model and from nothing; then with other shares."""
    pairs = [_both_arms(place, plan.SHARE, seed) for seed in (plan.SEEDS[:1] if place.tiny else plan.SEEDS)]
    scratch, pretrained = (  # the mean of the draws, and how they differ
        mean(arm, np.array([[one.value] for one in arm]), same_patients=True) for arm in zip(*pairs, strict=True)
    )
    gain = difference(scratch, pretrained)
    curve = {}
    for share in plan.OTHER_SHARES[:1] if place.tiny else plan.OTHER_SHARES:
        scratch, pretrained = _both_arms(place, share, plan.SEEDS[0])
        curve[str(share)] = {
            "num_labelled": _num_labelled(place, share),
            "scratch": plain(interval_of(scratch)),
            "pretrained": plain(interval_of(pretrained)),
            "pretrained_minus_scratch": plain(difference(scratch, pretrained)),
        }
    return {
        "num_women": place.women[2],
        "num_labelled": _num_labelled(place, plan.SHARE),
        "auroc": {arm: [plain(interval_of(pair[k])) for pair in pairs] for k, arm in enumerate(ARMS)},
        "pretrained_minus_scratch": plain(gain),
        "of_each_draw": [round(b.value - a.value, 4) for a, b in pairs],
        "other_shares": curve,
    }


def _both_arms(place: Place, share: float, seed: int) -> list[Resampled]:
    """Return the area of both arms, from nothing and pretrained, on the test women."""
    areas = []
    for arm in ARMS:
        kept = place.run / "labels" / f"{arm}-{round(100 * share)}-{seed}.npz"
        if not kept.is_file():
            shards = _labelled(place, share, seed)
            pack = trained(kept.with_suffix(""), _fine_tuning(place, shards, _num_labelled(place, share), arm, seed))
            exams = place.exams("test", pack)
            head = read_pack_heads(pack, pack_card(pack))["mammography_malignancy"].head
            logits = head.logits(exams.wholes, exams.model)
            truth = [any(v["mammography_malignancy"] == "malignant" for v in own) for own in exams.view_labels]
            np.savez(kept, score=logits[:, -1] - logits[:, :-1].max(axis=1), truth=truth, women=exams.patients)
            shutil.rmtree(kept.with_suffix(""))
        stored = np.load(kept)
        score, truth, women = stored["score"].astype(np.float64), stored["truth"].astype(np.int64), stored["women"]
        areas.append(measured(truth, score, women.tolist(), ["auroc"], num_resamples=plan.NUM_RESAMPLES)["auroc"])
    return areas


def _num_labelled(place: Place, share: float) -> int:
    return max(6, round(share * place.women[0]))


def _labelled(place: Place, share: float, seed: int) -> Path:
    """Build shards of some training women, and of those for validation."""
    shards = place.run / "labels" / f"shards-{round(100 * share)}-{seed}"
    if not (shards / "index.json").is_file():
        rows = read_rows(place.run / "cohort" / "table.csv")
        women = sorted({row["patient"] for row in rows if row["split"] == "train"})
        drawn = set(np.random.default_rng(seed).permutation(women)[: _num_labelled(place, share)].tolist())
        kept = [row for row in rows if row["patient"] in drawn or row["split"] == "val"]
        table = write_rows(shards.with_suffix(".csv"), kept)
        images = place.run / "cohort"
        build_shards(table, shards, Form(max_side=plan.HEIGHT_PX, key=KEY, group="exam"), images=images)
    return shards


def _fine_tuning(place: Place, shards: Path, num_labelled: int, arm: str, seed: int) -> dict[str, Any]:
    recipe = plan.recipe(str(shards), f"{arm}-{seed}")
    del recipe["text"]  # no words are read
    of_words = ("embed_dim", "text_width", "text_heads", "text_layers")
    towers = {name: value for name, value in plan.MODEL.items() if name not in of_words}
    model = {"start": str(place.pack), "freeze_bn": False} if arm == "pretrained" else towers
    steps = TINY_STEPS if place.tiny else plan.FINE_TUNE_STEPS
    return recipe | {
        "seed": seed,
        "model": model,
        "objective": {"contrastive": 0, "views": {"max": 4}, "supervised": [{"task": "mammography_malignancy"}]},
        "train": recipe["train"]
        | {
            "epochs": 10_000,
            "max_steps": steps,
            "lr": plan.RATES[arm],
            "warmup_steps": max(1, steps // 10),
            "batch_size": 4 if place.tiny else min(plan.BATCH, num_labelled),
        },
    }


def stage_risk(place: Place) -> dict[str, Any]:
    """Learn a hazard head with both losses, and compare them with each other and with the oracle."""
    splits = {split: _followed(place, place.followed(split)) for split in ("train", "val")}
    splits["test"] = _followed(place, place.exams("test"))
    test = splits["test"]
    risks = {"known years": _hazard(splits, naive=False), "naive": _hazard(splits, naive=True), "oracle": test.true_NK}
    weights_PB = draw_weights(len(test.event_N), plan.NUM_RESAMPLES, seed=0)
    drawn = {name: _concordance(test, risk_NK, weights_PB) for name, risk_NK in risks.items()}
    error = {name: float(np.abs(risk_NK[:, -1] - test.true_NK[:, -1]).mean()) for name, risk_NK in risks.items()}
    cohort = Cohort(np.arange(len(test.event_N), dtype=np.int32), (), ())
    by_year = {
        f"{one.population}, year {one.year}": {metric: plain(e[0]) for metric, e in one.estimates.items()}
        for one in yearly_figures(
            cohort, Risk("risk", risks["known years"], YEARS, test.event_N, test.followup_N), weights_PB
        )
        if one.population == "risk"
    }

    def apart(name: str, other: str) -> dict[str, Any]:
        values = drawn[name] - drawn[other]
        return plain(change(float(values[0]), values[1:], len(test.event_N)))

    return {
        "num_women": len(test.event_N),
        "num_events": int((~np.isnan(test.event_N)).sum()),
        "c_index": {name: plain(change(float(d[0]), d[1:], len(test.event_N))) for name, d in drawn.items()},
        "known_minus_oracle": apart("known years", "oracle"),
        "known_minus_naive": apart("known years", "naive"),
        "mean_error_of_5_year_risk": error,
        "mean_5_year_risk": {name: float(risk_NK[:, -1].mean()) for name, risk_NK in risks.items()},
        "by_year": by_year,
    }


@dataclass(frozen=True, eq=False)
class Followed:
    """Women without a cancer at the examination."""

    vectors_ND: NDArray[np.float32]
    event_N: Floats
    followup_N: Floats
    true_NK: Floats


def _followed(place: Place, exams: Exams) -> Followed:
    truth = [place.truth[own[0]] for own in exams.hashes]
    event_N, followup_N = (np.array([t[f"{name}_months"] for t in truth]) for name in ("event", "followup"))
    kept = ~(event_N <= DETECTED_MONTHS)
    true_NK = np.array([[t[f"true_risk_{year}"] for year in YEARS] for t in truth])
    return Followed(exams.wholes[kept], event_N[kept], followup_N[kept], true_NK[kept])


def _hazard(splits: Mapping[str, Followed], *, naive: bool) -> Floats:
    """Learn on the training women, choose the step on validation women, and answer for the test women."""
    tensors = {}
    for split, women in splits.items():
        truth, mask = hazard_targets(women.event_N, women.followup_N, len(YEARS))
        scaled = torch.from_numpy(women.vectors_ND) * women.vectors_ND.shape[1] ** 0.5
        tensors[split] = scaled, truth, torch.ones_like(mask) if naive else mask
    best: tuple[float, Floats] | None = None
    for decay in plan.HAZARD_DECAYS:
        torch.manual_seed(plan.SEED)
        head = AdditiveHazard(tensors["train"][0].shape[1], len(YEARS))
        optimizer = torch.optim.AdamW(head.parameters(), lr=plan.HAZARD_LR, weight_decay=decay)
        for _ in range(plan.HAZARD_STEPS):
            features, truth, mask = tensors["train"]
            loss = masked_hazard_loss(head(features), truth, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                features, truth, mask = tensors["val"]
                of_val = masked_hazard_loss(head(features), truth, mask).item()
                if best is None or of_val < best[0]:
                    best = of_val, head(tensors["test"][0]).sigmoid().double().numpy()
    assert best is not None
    return best[1]


def _concordance(women: Followed, risk_NK: Floats, weights_PB: NDArray[Any]) -> Floats:
    """Return the concordance in the sample and in each resample, [1 + B]."""
    event_N = ~np.isnan(women.event_N)
    time_N = np.where(event_N, women.event_N, women.followup_N)
    once_N1 = np.ones((len(time_N), 1), np.uint8)
    weights_NB = np.concatenate([once_N1, weights_PB], axis=1)
    return concordance(time_N, event_N, risk_NK, columns_N=column_of(time_N, YEARS), weights_NB=weights_NB)


STAGES: Mapping[str, Callable[[Place], dict[str, Any]]] = {
    "views": stage_views,
    "labels": stage_labels,
    "risk": stage_risk,
}


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""
    lines = ["| what | value (95 % interval) |", "|---|---|"]
    if views := figures.get("views"):
        about = f"{views['num_malignant']} of {views['num_breasts']} breasts"
        lines += [f"| malignancy, AUC, {name} ({about}) | {in_words(e)} |" for name, e in views["auroc"].items()]
        best = views["best_single_view"]
        lines.append(f"| fused minus the better single view ({best}) | {in_words(views['fused_minus_best'])} |")
    if labels := figures.get("labels"):
        about = f"{labels['num_labelled']} labelled women"
        for arm, own in labels["auroc"].items():
            lines += [
                f"| malignancy of the exam, AUC, {arm}, draw {n} ({about}) | {in_words(e)} |" for n, e in enumerate(own)
            ]
        lines.append(
            f"| pretrained minus from nothing, mean of draws | {in_words(labels['pretrained_minus_scratch'])} |"
        )
        for own in labels["other_shares"].values():
            about = f"{own['num_labelled']} labelled women"
            lines += [f"| malignancy of the exam, AUC, {arm} ({about}) | {in_words(own[arm])} |" for arm in ARMS]
            lines.append(f"| pretrained minus from nothing ({about}) | {in_words(own['pretrained_minus_scratch'])} |")
    if risk := figures.get("risk"):
        about = f"{risk['num_events']} cancers in {risk['num_women']} women"
        lines += [f"| risk, C-index, {name} ({about}) | {in_words(e)} |" for name, e in risk["c_index"].items()]
        lines.append(f"| loss of known years minus oracle | {in_words(risk['known_minus_oracle'])} |")
        lines.append(f"| loss of known years minus naive loss | {in_words(risk['known_minus_naive'])} |")
        lines += [
            f"| mean distance of the 5-year risk from the true one, {name} | {value:.3f} |"
            for name, value in risk["mean_error_of_5_year_risk"].items()
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = Place(args.run.resolve(), args.tiny)
    prepare(place)
    measure(place.run, {name: lambda stage=stage: stage(place) for name, stage in STAGES.items()}, table_of)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
