"""What should be known of a finished adaptation: shots that the base has seen, a method that learned nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.unit_features import ways_said
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import training_hashes
from medclip.models.prototypes.class_vectors import probabilities
from medclip.statistics.metrics.selection_score import mean_auroc
from medclip.wording import count

if TYPE_CHECKING:
    from medclip.adaptation.pack.adapted_model import Shot
    from medclip.models.model import Model

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
