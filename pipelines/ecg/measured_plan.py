"""What is measured on simulated records and on the shared part of PTB-XL, fixed before the first run.

Tried beforehand: how many records a second and core the towers learn from (joint_patch tiny with tokens of 0.25 s: 60,
resnet1d tiny: 106, at 100 Hz), and nothing else. The measured cohort has a seed of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEVELS = ("ecg_superclass", "ecg_rhythm", "ecg_subclass", "ecg_diagnostic", "ecg_form", "ecg_all")
"""Heads, learned together. The first one is what the measurement is about, and what a rate is chosen by."""
NUM_RESAMPLES = 2000

SEED = 19
"""Of the simulated cohort and of its pretraining."""
PATIENTS = (4000, 500, 2000)
"""Simulated, one record each: for training (their reports are read, their labels are not), for validation and tests."""
SAMPLING_HZ = 100.0
"""Of the records, as that of the published benchmark."""
TAKEN: Mapping[str, Any] = {"sampling_hz": SAMPLING_HZ, "seconds": 10}
SIMULATED: Mapping[str, Any] = {"signal": {"tower": "resnet1d", "size": "tiny", **TAKEN}}
"""MERL's better tower, half as wide: 1.2 million parameters."""
WORDS: Mapping[str, Any] = {"embed_dim": 128, "text_width": 128, "text_heads": 4, "text_layers": 2}
TEXT: Mapping[str, Any] = {"vocab_size": 1500, "context_length": 64, "captions_per_sample": 1}
EPOCHS, BATCH, LR = 20, 128, 1e-3
"""Of the pretraining, as in MERL: about 620 steps."""
SHARES = (0.01, 0.1)
"""Of the training patients whose labels are given."""
DRAWS = (0, 1, 2, 3, 4)
"""Of labelled patients; the interval has how they differ in it."""
STEPS: Mapping[float, int] = {0.01: 100, 0.1: 150}
FEW_BATCH = 32
RATES = ((5e-4, 1.0), (2e-3, 1.0), (1e-2, 0.1), (1e-2, 0.02))
"""Of the heads, and the tower's share of it. For each beginning and share the best one on validation patients, with the
first draw: a tower from nothing has farther to go than a pretrained one, and neither shall lose by its rate. The last
two came after a first measurement with one rate for tower and heads, in which fine-tuning undid the pretraining."""
AUGMENT: Mapping[str, Any] = {
    "signal": {"lead_dropout": 0.1, "amplitude": 0.1, "wander": 0.05, "noise_db": [20, 40], "shift": 0.5}
}
FEW_AUGMENT: Mapping[str, Any] = {
    "signal": {"lead_dropout": 0.0, "amplitude": 0.1, "wander": 0.0, "noise_db": None, "shift": 0.5}
}

REAL_TASKS = ("ecg_superclass", "ecg_rhythm")
REAL_COUNTED = ("norm", "mi", "sttc", "cd")
"""The mean is over these: ptbxl_z has no amplitudes, by which hypertrophy is told, and only 21 records in mV have it.
HYP is learned and measured on ptbxl alone, beside."""
DIVISIONS: tuple[tuple[tuple[int, ...], int], ...] = (((1, 2, 3), 4), ((4, 5, 6), 7), ((7, 8, 9, 10), 1))
"""Folds of PTB-XL for testing and the one for validation; all others are for training. So every patient is tested once,
by models that did not see them. Scores are turned into ranks within each division before areas are computed."""
REAL_TAKEN: Mapping[str, Any] = {
    "sampling_hz": 100.0,
    "seconds": 10,
    "baseline": "butterworth",
    "normalise": "zscore_lead",
}
"""ptbxl_z comes filtered at 0.5 to 40 Hz and scaled lead by lead: ptbxl is taken the same way, or the scale would tell
the two parts, and with them the classes (59 % of ptbxl are normal, 25 % of ptbxl_z), apart."""
REAL: Mapping[str, Any] = {"signal": {"tower": "joint_patch", "size": "tiny", "patch": 25, **REAL_TAKEN}}
"""40 tokens of 0.25 s: masked pretraining needs tokens."""
REAL_BATCH = 32
MASKED_EPOCHS, MASKED_LR = 80, 1e-3
REPORT_EPOCHS, REPORT_LR = 40, 5e-4
"""Of the contrastive pretraining, which goes on with the masked tower; about half of the records have a report."""
LENS: Mapping[str, Any] = {"depth": 1, "latent_heads": 3, "head_dim": 64, "token_width": 96}
LENS_EPOCHS, LENS_LR = 30, 1e-3
TRUNK_PX = 96
TRUNK_MODEL: Mapping[str, Any] = {
    "image_tower": "vit_tiny_patch16_224",
    "image_weights": None,
    "size_px": TRUNK_PX,
}
TRUNK_MASKED_EPOCHS, TRUNK_EPOCHS, TRUNK_LR = 40, 12, 1e-3
"""The tower behind the lens: masked pretraining on chest films and fundus photographs, then their words."""
REAL_SHARES = (0.1, 1.0)
REAL_DRAWS: Mapping[float, tuple[int, ...]] = {0.1: (0, 1), 1.0: (0,)}
REAL_STEPS: Mapping[float, int] = {0.1: 60, 1.0: 120}
REAL_FEW_BATCH = 16
REAL_RATES = ((2e-4, 1.0), (1e-3, 1.0), (1e-2, 0.02))
"""Chosen in each division by itself, on its validation patients."""

TINY_PATIENTS = (48, 16, 32)
TINY_STEPS = 2


def train(epochs: int, batch: int, lr: float, tiny: bool) -> dict[str, Any]:
    """Return the section `train` of a pretraining."""
    limits: dict[str, Any] = {"max_steps": TINY_STEPS, "warmup_steps": 1} if tiny else {"warmup_steps": 30}
    return {
        "epochs": epochs,
        "batch_size": 8 if tiny else batch,
        "lr": lr,
        "weight_decay": 0.05,
        "image_lr_factor": 1.0,
        "threads": 1,
        "checkpoint_every": 200,
        **limits,
    }


def reading(shards: str, name: str, seed: int = SEED) -> dict[str, Any]:
    """Return what all pretrainings say: reports are quoted whole, their sentences in a new order each time."""
    quoted = {"native_share": 1.0, "native": "shuffled", "val_split": None, "test_split": None, "workers": 1}
    return {"name": name, "seed": seed, "data": {"shards": shards, **quoted}}


def contrastive(
    shards: str, name: str, model: Mapping[str, Any], *, tiny: bool, of_real: bool = False
) -> dict[str, Any]:
    """Return the recipe of MERL's pretraining with reports."""
    limits = (REPORT_EPOCHS, REAL_BATCH, REPORT_LR) if of_real else (EPOCHS, BATCH, LR)
    return reading(shards, name) | {
        "objective": "merl",
        "text": dict(TEXT),
        "model": {**model, **WORDS},
        "augment": dict(AUGMENT),
        "train": train(*limits, tiny),
    }
