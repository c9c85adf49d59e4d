"""What is compared, by what, and how often: fixed before the first figure of a test patient was seen.

Tried beforehand, on the training split alone: how many images a second one busy core learns from (50 to 70), how many
pairs each step keeps, and how many false texts the rewriting gives.

The question is whether any arm differs from `none`, which trains on everything. The family of comparisons is each other
arm times the four measures of `MEASURES`; their p-values are adjusted together (Benjamini and Hochberg). What else is
printed (single ways of retrieval, sources, tasks) is detail and is not tested.

Changed while the first seed ran and before any of its figures was read: classes of fewer than three test patients are
left out, since a mean with them has no interval (the pelvis, of two); and runs took two minutes in the place of one, so
that `concept` runs last, as far as there is time, and three seeds are aimed at.

After the tables were made: `MEASURED` and `SEEDS` say what was run (five arms, three seeds), and are what runs where
nobody names others. Before, `SEEDS` had a fourth seed (3) and all of `ARMS` ran; that seed never did, and `concept` ran
a day later, compared with `none` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BASE = "none"


@dataclass(frozen=True)
class Arm:
    """What one arm is trained on."""

    steps: Sequence[Mapping[str, Any]] = ()
    """Of select.yaml, over the training split; none keeps everything."""
    drawn: bool = False
    """Whether the selection is drawn anew with each seed; else all seeds train on one selection."""
    rewritten: bool = False
    """Whether it trains on what `pairs rewrite` made of the shards, with its false texts as hard negatives."""
    objective: Mapping[str, Any] = field(default_factory=dict)
    """What it changes of the recipe's objective, where arms differ by a loss and not by what they are trained on."""


SCORER = "medclip-mini"
"""It was trained on part of these very pairs (all but the book figures), and marks its own work: what `score` shows is
what a user gets who scores a pile by the model that learned from it."""
CLINICAL = ("clinical image", "micrograph", "radiology")
"""What `concept` keeps. Of book figures the labels are the column `kind` of their set, which is by words of the
caption; every other pair is a clinical image."""
ARMS: Mapping[str, Arm] = {
    BASE: Arm(),
    "basic": Arm([{"basic": {}}]),
    "score": Arm([{"clip_score": {"model": SCORER, "fraction": 0.5, "by": "modality"}}]),
    "balance": Arm([{"balance": {}}], drawn=True),
    "rewritten": Arm(rewritten=True),
    "concept": Arm([{"concept": {"keep": list(CLINICAL)}}]),
}
"""Every step as it is by default. `concept` came on top of the five that the comparison is about, because book figures
are what it is for."""
MEASURED = (BASE, "basic", "score", "balance", "rewritten")
"""Arms that run where none are named."""
LOSS_ARMS: Mapping[str, Arm] = {
    "token_alignment": Arm(objective={"losses": {"token_alignment": {}}}),
    "masked_words": Arm(objective={"losses": {"masked_words": {}}}),
    "lightclip": Arm(
        objective={"contrastive": 0, "losses": {"softened": {}, "token_alignment": {}, "masked_words": {}}}
    ),
    "softened": Arm(objective={"contrastive": 0, "losses": {"softened": {}}}),
    "levels": Arm(objective={"contrastive": 0, "losses": {"levels": {}}}),
}
"""Losses against the same recipe without them, over all pairs: a comparison, a run folder and a family of 20 p-values
of their own (five arms, four measures), `--arms none token_alignment masked_words lightclip softened levels`. Weights
and all else as they are by default, fixed on 2 December 2026 before any figure of them was seen. The suite is `TASKS`;
step time and memory are those of benchmarks/loss_step.py. Nothing but these runs is looked at before the tables; fewer
seeds are said to be fewer. `softened` and `levels`, which stand in the place of the plain loss as in their papers, were
added on 3 December 2026, when no run had begun."""
REWRITE: Mapping[str, Any] = {"seed": 0}
"""The file rewrite.yaml: rules, and false texts that words alone do not tell."""
HARD_NEGATIVES: Mapping[str, Any] = {"hard_negatives": {"weight": 1.0, "form": "pairwise"}}
"""`objective.losses` of the rewritten arm."""
SEEDS = (0, 1, 2)
"""Of a training: the order of samples, captions and augmentation. All seeds of a scale are run, or those are said that
were; arms run seed by seed, so that a run that is stopped leaves whole seeds."""

RETRIEVED = ("medpix2", "vqa_rad", "csdi_fundus", "cdd_cesm")
"""Each of these is one gallery of test images and their words: over all together, telling modalities apart would do."""
TASKS = ("body_region", "fundus_cataract", "mammography_malignancy")
"""What labels of the test patients can be asked, by words: area under the curve, mean over classes."""
MEASURES: Mapping[str, str] = {
    "r1": "R@1: mean of both ways, then of the sources",
    "r5": "R@5: likewise",
    "zero_shot": "zero-shot: area of each class against the rest, mean of the classes, then of the tasks",
    "word_control": "the same, less the mean area of unrelated words in the place of the task's own",
}
NUM_RESAMPLES = 2000
"""Of patients, for every figure; runs add how they differ."""


@dataclass(frozen=True)
class Scale:
    """How much every arm sees, and what learns from it."""

    steps: int
    recipe: Mapping[str, Any]
    """Changes to recipe.yaml."""

    @property
    def seen(self) -> int:
        """Samples seen, whatever is kept."""
        return self.steps * self.recipe["train.batch_size"]


_TINY = {
    "model.start": None,
    "model.image_tower": "test_efficientnet",
    "model.image_weights": None,
    "model.size_px": 32,
    "model.embed_dim": 32,
    "model.text_width": 32,
    "model.text_heads": 2,
    "model.text_layers": 1,
    "model.freeze_blocks": 0,
    "model.freeze_bn": False,
    "text.vocab_size": 1200,
    "train.batch_size": 32,
    "train.warmup_steps": 4,
}
SCALES: Mapping[str, Scale] = {
    "smoke": Scale(64, _TINY),
    "shared": Scale(64, {"train.batch_size": 32}),
    "xs": Scale(500, {"train.batch_size": 256, "train.warmup_steps": 50}),
    "s": Scale(2_500, {"train.batch_size": 512, "train.warmup_steps": 250, "model.size_px": 192}),
    "m": Scale(12_500, {"train.batch_size": 1024, "train.warmup_steps": 500, "model.size_px": 192}),
}
"""Samples seen: 2,048 (a tower for tests), 2,048 (what is measured here), 128,000, 1.28 and 12.8 million. Of the last
three none was run."""
