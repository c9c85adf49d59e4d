"""Where each method differs from its published code: stated in results, on the card of an adapted pack, in the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_UPSTREAM = {"compat": "upstream"}


@dataclass(frozen=True)
class Deviation:
    """One difference."""

    text: str
    unless: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which it goes away."""


_RATE = Deviation(
    "The rate is one of three, chosen by log loss on validation patients or folds of the shots; published code fixes "
    "one, for all data sets or for each.",
    {"chosen_on": "given"},
)
_STEPS = Deviation("It trains for 100 steps of up to 32 images at every K.")
_STILL = Deviation("Features are those of the images as they are; the published code augments them in every epoch.")
_SENTENCES = Deviation(
    "Four of the task's prompts are drawn for each class in a step; the published code has one template."
)
_MILD = Deviation(
    "Augmentation keeps at least 70 % of the area, rotates by up to 10°, changes brightness and contrast and mirrors "
    "nothing; the published code crops down to 8 % and mirrors half of the images."
)
_PASSES = Deviation(
    "It passes over the shots as often as methods that change the towers do (100 times up to 32 images, 50 up to "
    "64), in batches of 32.",
    _UPSTREAM,
)
_PROMPT_RATE = Deviation(_RATE.text, _UPSTREAM)
DEVIATIONS: Mapping[str, tuple[Deviation, ...]] = {
    "linear-probe": (
        Deviation(
            "C is chosen by the log loss of cross-validation over shots and validation, and the fit is to both; "
            "published baselines choose it by accuracy on validation.",
            {"chosen_on": "given"},
        ),
        Deviation("The penalty pulls towards the prompts, not towards zero.", {"start": "zeros"}),
    ),
    "lp++": (
        Deviation(
            "Each step of α uses the gradient of its own epoch; the published code sums those of all epochs before.",
            {"accumulate_alpha_grad": True},
        ),
    ),
    "tip": (
        Deviation("Keys are features of the images as they are; published code averages ten augmentations of each."),
        Deviation("β is searched further than published where the shots lie close together."),
        Deviation(
            "Without validation patients α and β are searched on folds of the shots; the published code needs some."
        ),
    ),
    "tip-f": (
        Deviation("Keys begin as features of the images as they are, and train on them; published code augments both."),
        _RATE,
        Deviation("The last epoch is the model; the published code takes the best one by test accuracy."),
        Deviation("Keys keep unit norm; in the published code they are free."),
        Deviation(
            "It passes over the shots as often as methods that change the towers do; the published code 20 times, in "
            "batches of 256."
        ),
    ),
    "clip-adapter": (
        _STILL,
        _RATE,
        Deviation("The optimiser is AdamW; the biomedical harness uses SGD.", {"optimiser": "sgd"}),
        Deviation("The ratio is 0.2 for every task; the biomedical harness has 0.5.", {"ratio": 0.5}),
    ),
    "coop": (
        _STILL,
        _PROMPT_RATE,
        Deviation(
            f"{_PASSES.text} The paper trains for 50, 100 or 200 epochs by K, the biomedical harness for 100.",
            _UPSTREAM,
        ),
    ),
    "cocoop": (
        _STILL,
        _PROMPT_RATE,
        Deviation(f"{_PASSES.text} The published code trains for 10 epochs in batches of one.", _UPSTREAM),
        Deviation("The published rate is 0.002 with any data set; the biomedical harness has 0.001.", {"lr": 0.001}),
    ),
    "biomedcoop": (
        Deviation("The teacher's sentences are the task's prompts; published are 50 a class by a language model."),
        Deviation("λ1, λ2 and τ are 0.5, 0.5 and 1.5 for every task; the published code has them for each data set."),
        _STILL,
        _PROMPT_RATE,
        Deviation(f"{_PASSES.text} The published code trains for 100 epochs in batches of 4.", _UPSTREAM),
    ),
    "ranking": (
        Deviation("Tokens are those of the images as they are; the published code mirrors half of the images."),
        _RATE,
        Deviation(
            "It passes over the shots as often as methods that change the towers do, in groups of 32 of one question; "
            "a published group has 64 images, a fifth of them of other questions with the amount 0."
        ),
        Deviation("Tokens are 128 wide inside, by a projection; published are 768.", {"width": 768}),
        Deviation(
            "Pairs of one step teach nothing; the published code counts them as answered with no.", {"ties": "upstream"}
        ),
        Deviation("Half of what the pair head says of the other order is taken away.", {"antisymmetric": False}),
        Deviation(
            "Steps are learned about their mean in standard deviations; the published code learns them as they are."
        ),
        Deviation("The score is cut into steps by a slope that is fitted on held-out shots; published is the score."),
    ),
    "svd": (
        _RATE,
        _STEPS,
        Deviation("Published runs have 60 to 200 epochs, and so fewer steps with fewer shots."),
        Deviation(
            "The cosine runs once, over all steps; the published biomedical code steps a schedule of so many epochs "
            "once per iteration.",
            _UPSTREAM,
        ),
        _SENTENCES,
        _MILD,
        Deviation("Drop-out of the text tower is off.", {"dropout": True}),
        Deviation(
            "Every singular value is kept; the published code rounds ranks down to a multiple of 4.",
            {"rank_compat": True},
        ),
        Deviation("Of a convolutional image tower the last two blocks learn; the published code has transformers."),
    ),
    "lora": (
        _RATE,
        _STEPS,
        Deviation("CLIP-LoRA has 500 steps for each shot a class."),
        Deviation("The rank is 4, α is 8 and there is no drop-out; CLIP-LoRA has rank 2, α 1 and drop-out 0.25."),
        Deviation(
            "All matrices of the blocks learn; CLIP-LoRA adapts queries, keys and values.", {"roles": ["q", "k", "v"]}
        ),
        _SENTENCES,
        _MILD,
    ),
    "norm": (
        _RATE,
        _STEPS,
        Deviation("LN-tuning of a detector has 10 epochs in batches of 128, with a rate of 8e-5."),
        Deviation(
            "The norms of both towers learn, and the prompts answer; the detector has a linear head on the image tower."
        ),
        Deviation("Features are not mixed by slerp.", {"slerp": [0, 1]}),
    ),
}
"""Method to its differences. Methods that are not in it follow nobody's code."""


def deviations_of(method: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs with these settings.

    Example:
        >>> deviations_of("lp++", {"accumulate_alpha_grad": True})
        ()
    """
    return tuple(
        d.text
        for d in DEVIATIONS.get(method, ())
        if not d.unless or any(settings.get(name) != value for name, value in d.unless.items())
    )
