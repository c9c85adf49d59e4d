"""An adapted model as a value: merge it, ask it, keep it small, or write it as a pack."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.heads import load_head
from medclip.adaptation.data.token_heads import answering
from medclip.adaptation.data.unit_features import unit_logits, ways_said
from medclip.adaptation.deviations import deviations_of
from medclip.adaptation.methods import Fitted, find_method
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, new_folder, read_note, refuse_other
from medclip.files.tables.write import defused_text
from medclip.models.encoding.unit_reader import encode_units
from medclip.models.packs.card import training_hashes
from medclip.models.packs.manifest import pack_digest
from medclip.models.prototypes.class_vectors import probabilities
from medclip.statistics.metrics.selection_score import mean_auroc
from medclip.text.vocabulary.find_task import to_yaml
from medclip.text.vocabulary.load import parse_task
from medclip.wording import count

if TYPE_CHECKING:
    from torch import Tensor

    from medclip.models.inputs.preprocess import Images
    from medclip.models.model import Model


FORMAT = 1
DESCRIPTION = "adapted.json"
TENSORS = "adapted.safetensors"
CHECKPOINT = "checkpoint"
REPLACE = "Name another folder, or replace it with --overwrite (overwrite=True)."
_HEAD, _DELTA = "head.", "delta."


@dataclass(frozen=True)
class Shot:
    """One unit that was learned from."""

    sha256: str
    """Of its bytes."""
    patient: str
    """Keyed hash."""
    role: str
    """"train", or "val" where settings were chosen with it."""
    label: str
    """Class name; for multi-label tasks "effusion=1;mass=0", what is not known left out."""


@dataclass(frozen=True)
class Base:
    """Which pack was adapted."""

    name: str
    version: str
    digest: str
    """sha256 of its manifest.json, which holds the hash of every file."""

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"{self.name} {self.version} (manifest {self.digest[:12]})"


@dataclass(frozen=True)
class Draw:
    """How the shots were drawn."""

    shots: int
    """K, as asked for."""
    seed: int
    """Of the shots."""
    init_seed: int
    """Of initialisation, batches and augmentation."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """A base model and what a method learned from a few labelled units."""

    model: Model
    """The base, loaded."""
    method: str
    text: ClassText
    fitted: Fitted
    shots: tuple[Shot, ...]
    draw: Draw
    ways: tuple[str, ...] = ()
    """Ways of reading of the shots: "xray", "ct:volume"."""

    @cached_property
    def base(self) -> Base:
        """The base's name, version and hash."""
        return base_of(self.model)

    def merge(self) -> Model:
        """Return the dense model: the base itself where the towers did not change, else one as fast as the base."""
        return self._merged

    @cached_property
    def _merged(self) -> Model:
        return self.fitted.merged(self.model)

    def predict_logits(self, pixels: Sequence[Images]) -> NDArray[np.float32]:
        """Return the logits of units, float32 [N, C].

        Args:
            pixels: The images of each unit, from `model.preprocess.to_array` of its views.
        """
        merged = self.merge()
        return unit_logits(self.fitted.head, merged, encode_units(answering(merged, [self.fitted.head]), pixels))

    def predict_proba(self, pixels: Sequence[Images]) -> NDArray[np.float32]:
        """Return the probabilities of units, float32 [N, C]: as scoring gives them with the pack."""
        return probabilities(self.predict_logits(pixels), self.text.kind)

    def save(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Write the small checkpoint: the head and what was learned of the towers, bound to the base by its hash.

        Args:
            folder: New, empty, or holding a checkpoint of the same base, task, method, settings and shots, which is
                replaced.
            replace: Whether any other checkpoint is replaced, too.

        Raises:
            MedclipError: OUTPUT_IN_USE, WRONG_USE, DISK_FULL, PERMISSION_DENIED.
        """
        import torch
        from safetensors.torch import save_file

        folder = Path(folder)
        check_checkpoint(folder)
        if not replace and (folder / DESCRIPTION).is_file():
            refuse_other(folder, CHECKPOINT, read_note(folder / DESCRIPTION), self._described(), remedy=REPLACE)
        tensors = {f"{_HEAD}{k}": torch.from_numpy(np.array(v)) for k, v in self.fitted.head.arrays().items()}
        tensors |= {f"{_DELTA}{k}": v.detach().cpu().contiguous() for k, v in self.fitted.delta.items()}
        with new_folder(folder) as fresh:
            save_file(tensors, fresh / TENSORS)
            (fresh / DESCRIPTION).write_text(json.dumps(self._described(), indent=1) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, base: Model | str | Path) -> Adapted:
        """Read a small checkpoint onto its base; logits are those of before, bit for bit on the same machine.

        Args:
            folder: Folder that `save` wrote.
            base: The base: loaded, or the name or folder of its pack.

        Raises:
            MedclipError: PACK_INVALID for another base than it was made with, naming both, and for a checkpoint that
                cannot be read; what `load_model` raises.
        """
        from medclip.models.packs.pack import load_model

        folder = Path(folder)
        described, tensors = _read(folder)
        model = load_model(base) if isinstance(base, str | Path) else base
        try:
            made_with, given = Base(**described["base"]), base_of(model)
            if made_with.digest != given.digest:
                raise MedclipError(
                    Reason.PACK_INVALID,
                    f"this was learned on top of {made_with}; the base given is {given}.",
                    where=folder,
                    hint="Load it onto the pack that it was made with.",
                )
            task = parse_task(described["task"], where=folder / DESCRIPTION)
            head = {k.removeprefix(_HEAD): v.numpy() for k, v in tensors.items() if k.startswith(_HEAD)}
            delta = {k.removeprefix(_DELTA): v for k, v in tensors.items() if k.startswith(_DELTA)}
            clip = None
            if described["changed_towers"]:
                from medclip.adaptation.towers.methods import apply_delta

                clip = apply_delta(described["method"], model.clip, delta, described["settings"])
            fitted = Fitted(
                load_head(described["head"], head), described["num_trainable"], described["settings"], clip, delta
            )
            shots = tuple(Shot(**shot) for shot in described["shots"])
            text = class_text(task, described["classes"])
            ways = tuple(described["ways"])
            return cls(model, described["method"], text, fitted, shots, Draw(**described["draw"]), ways)
        except (KeyError, TypeError) as e:
            raise MedclipError(Reason.PACK_INVALID, f"{DESCRIPTION} is damaged ({e}).", where=folder) from e

    def shots_csv(self) -> str:
        """Return the list of shots as a table: hashes and classes, no path and no identifier."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("sha256", "patient", "role", "label"))
        writer.writerows((s.sha256, s.patient, s.role, defused_text(s.label)) for s in self.shots)
        return text.getvalue()

    @property
    def num_by_class(self) -> Mapping[str, int]:
        """Units that were learned from: by class, or by answer ("effusion=1")."""
        parts = [
            s.label.split(";") if self.text.rules.independent else [s.label] for s in self.shots if s.role == "train"
        ]
        return dict(sorted(Counter(part for of_shot in parts for part in of_shot).items()))

    @property
    def deviations(self) -> tuple[str, ...]:
        """Where it differs from the method's published code."""
        return deviations_of(self.method, self.fitted.settings)

    @property
    def title(self) -> str:
        """The method's printed name."""
        return find_method(self.method).title

    def _described(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "base": asdict(self.base),
            "method": self.method,
            "task": to_yaml(self.text.task),
            "classes": list(self.text.names),
            "head": self.fitted.head.kind,
            "changed_towers": self.fitted.clip is not None,
            "num_trainable": self.fitted.num_trainable,
            "settings": dict(self.fitted.settings),
            "draw": asdict(self.draw),
            "ways": list(self.ways),
            "shots": [asdict(shot) for shot in self.shots],
        }


def check_checkpoint(folder: Path) -> None:
    """Refuse a folder that no checkpoint can go to.

    Raises:
        MedclipError: WRONG_USE for what is no folder; OUTPUT_IN_USE for one that holds something else.
    """
    claim_folder(folder, CHECKPOINT, marks=(DESCRIPTION,), in_one_step=True)


def base_of(model: Model) -> Base:
    """Name the pack of a loaded model, with the hash of its manifest."""
    return Base(model.card.name, str(model.card.version), pack_digest(Path(model.path)))


def label_of(text: ClassText, target: int | Sequence[float | None]) -> str:
    """Write a unit's target in words."""
    if isinstance(target, int):
        return text.names[target]
    return ";".join(f"{n}={v:g}" for n, v in zip(text.names, target, strict=True) if v is not None)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"this is no adapted checkpoint: {DESCRIPTION} or {TENSORS} cannot be read.",
            where=folder,
            hint="`Adapted.save` and `medclip adapt --checkpoint` write them.",
        ) from e
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise MedclipError(
            Reason.PACK_INVALID, f"{DESCRIPTION} is of another format.", where=folder, hint="Update medclip."
        )
    return described, tensors


MOST_LOOKED_AT = 128
"""Shots that the adapted model is asked about to see whether it learned anything. They go round the classes."""


def num_in_training(base: Model, shots: Sequence[Shot]) -> int | None:
    """Count the shots whose bytes are among the base's training files; None where the base does not list them."""
    known = training_hashes(base.path, base.card)
    return None if known is None else sum(shot.sha256 in known for shot in shots)


def seen_by_base(base: Model, shots: Sequence[Shot]) -> list[str]:
    """Return how many shots the base was trained on."""
    num_seen = num_in_training(base, shots)
    if not num_seen:
        return []
    were = "were" if num_seen > 1 else "was"
    return [
        f"{num_seen} of {len(shots)} shots {were} among the base's training files: settings chosen on them favour the "
        "base, and what is learned from them may hold less for new patients."
    ]


def learned_nothing(
    text: ClassText, logits_NC: NDArray[np.float32], targets: NDArray, settings: Mapping[str, Any]
) -> list[str]:
    """Return the sentence that the adapted model cannot even tell its own shots apart.

    Args:
        text: The classes.
        logits_NC: Logits of the shots by the adapted model.
        targets: int64 [N]; float32 [N, C] with NaN for what is not known.
        settings: Settings of the method, as used: advice is about those that it has.

    Raises:
        MedclipError: NON_FINITE where it says no numbers.
    """
    if not np.isfinite(logits_NC).all():
        raise MedclipError(
            Reason.NON_FINITE, "the adapted model's answers are not finite numbers.", hint=_doubts(settings)
        )
    advice = _doubts(settings)
    if text.rules.independent:
        area = order(text, logits_NC, targets)
        if area > 0.5:
            return []
        return [f"It learned nothing: it does not tell its own shots apart (AUROC {area:.2f}). {advice}"]
    predicted, classes = logits_NC.argmax(axis=1), np.unique(targets)
    if len(classes) > 1 and len(set(predicted.tolist())) == 1:
        return [f"It learned nothing: it says {text.names[predicted[0]]} for every one of its own shots. {advice}"]
    right = float(np.mean([(predicted[targets == c] == c).mean() for c in classes]))
    if right > 1 / len(classes):
        return []
    return [f"It learned nothing: of its own shots it is right about {right:.0%}, as guessing is. {advice}"]


def _doubts(settings: Mapping[str, Any]) -> str:
    """Ask about the settings that a method has, with their values."""
    lengths = [f"{settings[name]} {name}" for name in ("steps", "epochs") if name in settings]
    if "lr" in settings and lengths:
        return f"Is the learning rate (lr {settings['lr']:g}) too high or too low, or are {lengths[0]} too few?"
    if lengths:
        return f"Are {lengths[0]} too few?"
    return "The base's features of these images may not differ by class; a method that changes the towers may do more."


def below_chance(text: ClassText, zero_shot_NC: NDArray[np.float32], targets: NDArray) -> list[str]:
    """Return the sentence that the base's prompts order the shots worse than chance.

    Args:
        text: The classes.
        zero_shot_NC: Logits of the prompts for all that is learned from or chosen with.
        targets: Targets, as for `learned_nothing`.
    """
    area = order(text, zero_shot_NC, targets)
    if area >= 0.5:
        return []
    return [
        f"Zero-shot is below chance on these {count(len(targets), 'file')} (AUROC {area:.2f}): the prompts do not fit "
        "the images, or the base does not know the question. What stays near zero-shot is no better."
    ]


def order(text: ClassText, logits_NC: NDArray[np.float32], targets: NDArray) -> float:
    """Return the area under the ROC curve, mean over classes, each against the rest; ½ where nothing can be ordered."""
    if text.rules.independent:
        return float(mean_auroc(logits_NC[None], targets)[0])
    shares, shown = probabilities(logits_NC, text.kind), np.eye(len(text.names))[targets]
    return float(mean_auroc(shares[None], shown)[0])


def run_notes(
    text: ClassText, base: Model, ways: Sequence[str], test_targets: NDArray, settings: Mapping[str, Any]
) -> list[str]:
    """Return what the figures and the answers do not cover.

    Args:
        text: The classes.
        base: The base.
        ways: Ways of reading of the shots.
        test_targets: Targets of the test units that could be read.
        settings: Settings of the method, as used.
    """
    notes = []
    if not len(test_targets):
        notes.append("Nobody is tested on: the pack has no figures.")
    elif text.rules.one_answer:
        present = set(test_targets.tolist())
        absent = [n for c, n in enumerate(text.names) if c not in present]
        if absent:
            notes.append(f"No test patient has: {', '.join(absent)}; the figures say nothing of it.")
    if lacking := settings.get("no_examples"):
        names = ", ".join(str(c) for c in lacking)
        notes.append(f"No examples with and without: {names}; the pack answers with the prompts there.")
    new = [way for way in ways if way not in base.preprocess.adapters]
    if new:
        notes.append(f"The base does not say that it was trained on {ways_said(new)} files, read in this way.")
    return notes
