"""Fine-tuning with a share of the labels, from several beginnings, each answered for once and kept."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from records import encode, macro_area

from medclip.shards.writing.build import Form, build_shards

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import trained, write_rows  # pyright: ignore[reportMissingImports]

Answers = Mapping[str, NDArray[Any]]
"""SPLIT:TASK to logits [N, C]."""
Rate = tuple[float, float]
"""Of the heads, and that of the tower as a share of it."""
SPLITS = ("val", "test")
_QUICK = 200
"""Resamples where only the figure is wanted."""


@dataclass(frozen=True)
class FewLabels:
    """What is fine-tuned, and on what.

    Attributes:
        run: Folder for what is kept.
        rows: Of the training patients, with labels.
        images: Folder that their files are relative to.
        shards: With the splits val and test.
        key: Patients are hashed with it.
        tasks: Heads, learned together; the first one chooses the rate.
        starts: The `model` section of the recipe from each beginning.
        recipe: What else it says.
        steps: By share of the labels.
        batch: Records of a step.
        rates: Of which one is chosen for each beginning and share, with the first draw.
    """

    run: Path
    rows: Sequence[Mapping[str, str]]
    images: Path
    shards: Path
    key: bytes
    tasks: tuple[str, ...]
    starts: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]
    steps: Mapping[float, int]
    batch: int
    rates: tuple[Rate, ...]

    def num_patients(self, share: float) -> int:
        """Training patients whose labels are given."""
        return max(4, round(share * len({row["patient"] for row in self.rows})))

    def drawn(self, share: float, draw: int) -> list[Mapping[str, str]]:
        """Draw patients; a larger share of the same draw has those of the smaller one, too."""
        patients = sorted({row["patient"] for row in self.rows})
        order = np.random.default_rng(draw).permutation(patients)
        kept = set(order[: self.num_patients(share)].tolist())
        return [row for row in self.rows if row["patient"] in kept]

    def labelled(self, share: float, draw: int) -> Path:
        """Build the shards of drawn patients."""
        shards = self.run / f"shards-{share:g}-{draw}"
        if not (shards / "index.json").is_file():
            rows = [{**row, "split": "train"} for row in self.drawn(share, draw)]
            table = write_rows(shards.with_suffix(".csv"), rows)
            build_shards(table, shards, Form(key=self.key, stores="signals"), images=self.images)
        return shards

    def answers(self, start: str, share: float, draw: int, rate: Rate) -> Answers:
        """Fine-tune, and answer for the validation and the test records."""
        lr, tower = rate
        kept = self.run / f"{start}-{share:g}-{draw}-{lr:g}-{tower:g}.npz"
        if not kept.is_file():
            shards = self.labelled(share, draw)
            pack = trained(kept.with_suffix(""), self.fine_tuning(shards, start, share, draw, rate))
            answers: dict[str, NDArray[Any]] = {}
            for split in SPLITS:
                records = encode(pack, self.shards, split)
                answers |= {f"{split}:{task}": records.by_head(task).astype(np.float64) for task in self.tasks}
            draft = kept.with_suffix(".part.npz")
            np.savez(draft, **answers)  # type: ignore[arg-type]
            draft.replace(kept)
            shutil.rmtree(kept.with_suffix(""))
        return dict(np.load(kept))

    def fine_tuning(self, shards: Path, start: str, share: float, draw: int, rate: Rate) -> dict[str, Any]:
        """Return the recipe of one fine-tuning. The weights of its last step count: nothing is chosen on the way."""
        batch = min(self.batch, len(self.drawn(share, draw)))
        steps = self.steps[share]
        return {
            **self.recipe,
            "name": f"{start}-{share:g}-{draw}",
            "seed": draw,
            "data": {"shards": str(shards), "val_split": None, "test_split": None, "workers": 1},
            "model": dict(self.starts[start]),
            "objective": {"contrastive": 0, "supervised": [{"task": task} for task in self.tasks]},
            "train": {
                "epochs": 100_000,
                "max_steps": steps,
                "warmup_steps": max(1, steps // 10),
                "batch_size": batch,
                "lr": rate[0],
                "image_lr_factor": rate[1],
                "weight_decay": 0.05,
                "threads": 1,
                "checkpoint_every": 10_000,
            },
        }

    def rate_of(self, start: str, share: float, val: Any) -> Rate:
        """Choose the rate of a beginning and a share: the best one of the first draw on validation."""
        if len(self.rates) == 1:
            return self.rates[0]
        areas = {}
        for rate in self.rates:
            logits = self.answers(start, share, 0, rate)[f"val:{self.tasks[0]}"]
            area, _ = macro_area(logits[None], val.targets(self.tasks[0]), val.patients, _QUICK)
            areas[rate] = 0.0 if area is None else area.value
        return max(self.rates, key=lambda rate: areas[rate])
