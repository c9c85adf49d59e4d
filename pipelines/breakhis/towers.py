"""Towers fine-tuned in one division, and what they answer for its validation and test images.

Training is the house's one trainer with `tower.yaml`; classes, and in each of them patients, are drawn equally often: a
patient is a source of its own, under a number, and sources have weights.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measured_plan as plan
import numpy as np
import yaml
from numpy.typing import NDArray
from protocols import Sides
from scipy.special import log_softmax
from tree import MALIGNANCY, SUBTYPES, BreakHisImage

from medclip.adaptation.finetune.recipe_of import find_start
from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.models.packs.pack import load_model
from medclip.models.prototypes.class_vectors import encode_prompts
from medclip.shards.writing.build import Form, build_shards
from medclip.text.vocabulary.find_task import find_task
from medclip.text.vocabulary.prompts import expand

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import trained, write_rows  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
TASKS: Mapping[str, Path] = {name: HERE / "tasks" / f"breakhis_{name}.yaml" for name in ("malignancy", "subtype")}
CLASSES: Mapping[str, tuple[str, ...]] = {"malignancy": MALIGNANCY, "subtype": SUBTYPES}
ABSENT = -30.0
"""Log probability of a class that training did not have."""
_TRANSFORMERS = ("vit", "deit", "swin", "beit", "eva")
_KEY = b"medclip breakhis".ljust(32)

Floats = NDArray[np.float64]


def label_of(image: BreakHisImage, task: str) -> int:
    """Return the number of an image's class."""
    return CLASSES[task].index(getattr(image, task))


def kind_of(tower: str) -> str:
    """Return "transformer" or "cnn" of a tower of timm, or of a pack's."""
    return "transformer" if any(name in find_start(tower).tower for name in _TRANSFORMERS) else "cnn"


@dataclass(frozen=True)
class Division:
    """One division of the images of one magnification, or of all.

    Attributes:
        name: Of the folders, such as "40-0".
        images: All that have a part.
        side: train, val or test of each.
        folder: What their files are relative to.
        run: Where everything is kept.
        leaks: Whether images, not patients, were divided.
        overrides: What to change in the recipe, by section and key.
    """

    name: str
    images: tuple[BreakHisImage, ...]
    side: Sides
    folder: Path
    run: Path
    leaks: bool = False
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def rows(self, side: str) -> NDArray[np.int64]:
        """Return the places of the images of a side."""
        return np.flatnonzero(self.side == side)

    def sources(self) -> list[str]:
        """Return a number for each image's patient, of no meaning outside."""
        numbers: dict[str, int] = {}
        return [f"p{numbers.setdefault(image.patient, len(numbers)):03d}" for image in self.images]

    def weights(self, task: str) -> dict[str, float]:
        """Return how often the images of each patient are drawn: classes alike, and patients alike inside them.

        A patient with images of two classes counts to the one it has more of.
        """
        train, sources = self.rows("train"), self.sources()
        sizes = Counter(sources[i] for i in train)
        votes = {source: Counter[int]() for source in sizes}
        for i in train:
            votes[sources[i]][label_of(self.images[i], task)] += 1
        class_of = {source: max(sorted(counts), key=counts.__getitem__) for source, counts in votes.items()}
        patients = Counter(class_of.values())
        mean = len(train) / len(sizes)
        return {s: round(mean * len(sizes) / (len(patients) * patients[class_of[s]] * n), 6) for s, n in sizes.items()}

    def shards(self) -> Path:
        """Build the shards with the labels of both tasks, or find them."""
        place = self.run / "shards" / self.name
        if not (place / "index.json").is_file():
            rows = [
                {
                    "file": str(self.folder / image.file),
                    "patient": image.file if self.leaks else image.patient,
                    "modality": "pathology",
                    "split": str(side),
                    "source": source,
                    **{f"label:breakhis_{task}": getattr(image, task) for task in TASKS},
                }
                for image, side, source in zip(self.images, self.side, self.sources(), strict=True)
            ]
            tasks = [find_task(path) for path in TASKS.values()]
            build_shards(
                write_rows(place.with_suffix(".csv"), rows), place, Form(key=_KEY, max_side=352, tasks=tuple(tasks))
            )
        return place


def recipe_of(division: Division, tower: str, task: str, seed: int = 0) -> dict[str, Any]:
    """Return tower.yaml for a tower, a task and a division.

    Args:
        division: Where it learns.
        tower: Name of a tower of timm, which begins with random weights, or a pack.
        task: "malignancy" or "subtype".
        seed: Of all chance.
    """
    recipe: dict[str, Any] = yaml.safe_load((HERE / "tower.yaml").read_text(encoding="utf-8"))
    start, kind = find_start(tower), kind_of(tower)
    train = division.rows("train")
    learned = {label_of(division.images[i], task) for i in train}
    classes = [name for n, name in enumerate(CLASSES[task]) if n in learned]
    recipe |= {"name": f"breakhis-{task}", "seed": seed}
    recipe["data"] |= {"shards": str(division.shards()), "weights": division.weights(task)}
    recipe["model"] |= {"image_weights": None if start.pack is None else str(start.pack)}
    if start.pack is None:
        recipe["model"]["image_tower"] = tower
    recipe["objective"]["supervised"] = {"task": str(TASKS[task]), "classes": classes, "smoothing": plan.SMOOTHING}
    lr = plan.LR_SCRATCH if start.pack is None else plan.LR[kind]
    steps = max(1, len(train) // recipe["train"]["batch_size"])
    recipe["train"] |= {
        "lr": lr,
        "layer_decay": 1.0 if start.pack is None else plan.LAYER_DECAY[kind],
        "warmup_steps": plan.WARMUP_EPOCHS * steps,
    }
    for section, values in division.overrides.items():
        recipe[section] = recipe[section] | values
    return recipe


def log_answers(pack: Path, division: Division, task: str, sides: Sequence[str] = ("val", "test")) -> dict[str, Floats]:
    """Return what a trained pack says of the images of some sides: log probabilities [N, C] of all classes."""
    model = load_model(pack)
    head = read_pack_heads(pack, model.card)[f"breakhis_{task}"]
    columns = [CLASSES[task].index(name) for name in head.text.names]
    answers = {}
    for side in sides:
        files = [division.folder / division.images[i].file for i in division.rows(side)]
        features = model.embed_images(files, modality="pathology")
        logits = np.asarray(head.head.logits(features, model), np.float64)
        answers[side] = np.full((len(files), len(CLASSES[task])), ABSENT)
        answers[side][:, columns] = log_softmax(logits, axis=1)
    return answers


def fine_tuned(division: Division, tower: str, task: str) -> dict[str, Floats]:
    """Fine-tune where that was not done, and return the answers, which are kept; the training's folder is not."""
    name = f"{Path(tower).name}-{task}"
    kept = division.run / "answers" / division.name / f"{name}.npz"
    if not kept.is_file():
        out = division.run / "training" / division.name / name
        answers = log_answers(trained(out, recipe_of(division, tower, task)), division, task)
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".part.npz")
        np.savez(draft, **answers)  # type: ignore[arg-type]
        draft.replace(kept)
        shutil.rmtree(out)
        print(f"{division.name}: {name}", flush=True)
    return dict(np.load(kept))


def worded(model: Any, features_ND: NDArray[np.float32], task: str) -> Floats:
    """Return what a model says that is asked in words: log probabilities [N, C]."""
    prompts = [prompt.positive for prompt in expand(find_task(TASKS[task]))]
    cosines_NC = features_ND @ encode_prompts(model, prompts).T
    return log_softmax(np.asarray(model.logit_scale * cosines_NC, np.float64), axis=1)
