"""A tiny pack and a folder of labelled images that differ by class, built by code."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.table import LabelledUnit
from medclip.imaging.geometry import TokenBudget
from medclip.sample import Modality
from medclip.text.vocabulary.load import load_task

SIZE = 64
KEY = b"k" * 32


def make_pack(
    folder: Path, *, ways: dict[str, str] | None = None, budget: TokenBudget | None = None, **card: Any
) -> Path:
    """Write a pack with random weights that was "trained" on X-rays, or in the ways given."""
    from medclip.adapters.registry import get_adapter
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.models.packs.card import Card
    from medclip.models.packs.pack import save_pack
    from medclip.text.tokenizers.tokenizer import load_tokenizer, train_tokenizer
    from tests.models.conftest import CAPTIONS, random_clip, tiny_config

    tokenizer = folder.parent / f"{folder.name}-tokenizer"
    train_tokenizer(CAPTIONS * 3, tokenizer, vocab_size=400, context_length=16)
    config = tiny_config(load_tokenizer(tokenizer).vocab_size)
    # Without squeeze-excitation an image's place in its batch does not show, so that scores are equal to the last bit.
    config["vision_cfg"]["timm_model_name"] = "test_resnet"
    if budget is not None:
        sizes = {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": budget.patch_px}
        config["vision_cfg"] = {**sizes, "native_aspect": True}
    if ways is None:
        ways = {"xray": get_adapter("xray").preprocessing, "generic": get_adapter(None).preprocessing}
    values = {
        "name": "tiny",
        "version": "7",
        "modalities": ("xray",),
        "licence": "CC0",
        "tasks": {"chest_xray_view": {"classes": ["ap", "pa"]}, "modality": {"classes": ["xray", "mri"]}},
        "data": [{"name": "noise", "licence": "CC0", "num_images": 1, "num_patients": 1}],
        "train_hashes_file": "train_hashes.txt",
        "patient_hashes_file": "patient_hashes.txt",
        **card,
    }
    extra = {"train_hashes.txt": b"00\n", "patient_hashes.txt": b"ff\n"}
    return save_pack(
        folder,
        random_clip(config),
        tokenizer,
        Preprocess(SIZE, adapters=ways, budget=budget),
        Card.model_validate(values),
        config=config,
        extra_files=extra,
    )


def image(path: Path, c: int, seed: int) -> Path:
    """Write a grey PNG: the brighter side and the width of stripes tell the class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:48, 0:48]
    bright = 90 + 70 * np.sin(x / (1.5 + 2 * c)) + 40 * ((y > 24) == (c % 2)) + rng.normal(0, 12, (48, 48))
    Image.fromarray(np.clip(bright, 0, 255).astype(np.uint8)).save(path)
    return path


def make_table(
    folder: Path, names: Sequence[str] = ("clear", "hazy"), *, patients: int = 8, files: int = 1, **columns: str
) -> Path:
    """Write images and table.csv: `patients` of each class with so many files each; more columns as given."""
    rows = []
    for c, name in enumerate(names):
        for p in range(patients):
            for f in range(files):
                file = f"{name.replace(' ', '_')}/{p:02d}_{f}.png"
                image(folder / file, c, 1000 * c + 10 * p + f)
                rows.append(
                    {"file": file, "patient": f"MRN-{c}{p:03d}", "modality": "xray", "finding": name, **columns}
                )
    return write_table(folder / "table.csv", rows)


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def units_of(classes: Sequence[int | tuple[float | None, ...]], patients: Sequence[int]) -> tuple[LabelledUnit, ...]:
    """Make units without files: a target and a patient each."""
    return tuple(
        LabelledUnit(n, Path(f"/x/{n}.png"), f"p{p}", Modality.XRAY, None, c, f"{n:04d}.png")
        for n, (c, p) in enumerate(zip(classes, patients, strict=True), 1)
    )


def views() -> ClassText:
    """The words of ap and pa."""
    return class_text(load_task("chest_xray_view"), ["ap", "pa"])


def findings() -> ClassText:
    """The words of two findings."""
    return class_text(load_task("chest_xray_findings"), ["pneumonia", "effusion"])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack, once a session; do not change it."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")
