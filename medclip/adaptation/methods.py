"""The methods: one table of names, and what each of them takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import Head
from medclip.adaptation.method_options import check_options
from medclip.errors import MedclipError, Reason, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medclip.models.model import Model


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a method learned."""

    head: Head
    num_trainable: int
    """Numbers that were learned or fitted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters as used, chosen ones included; plain values that JSON can hold."""
    clip: nn.Module | None = None
    """The dense dual encoder with what was learned merged in; None where the towers are the base's."""
    delta: Mapping[str, Tensor] = field(default_factory=dict)
    """What was learned of the towers, in the method's own form (singular values, LoRA factors, norms)."""
    prompt: Tensor | None = None
    """The learned context of a prompt method, [M, W] or [C, M, W], so that other class names can be asked for."""


Fit = Callable[..., Fitted]
"""fit(base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **options) -> Fitted"""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    title: str
    target: str
    """module:function of its `Fit`."""
    trains_towers: bool = False
    """Gradients through the towers: much dearer than the others."""

    def fit(
        self, base: Model, text: ClassText, train: Examples, val: Examples | None, *, seed: int, **options: Any
    ) -> Fitted:
        """Learn from `train`; `val`, where there is any, chooses hyper-parameters. Neither holds a test patient.

        Args:
            base: The loaded base model; not changed.
            text: The classes' words.
            train: The shots.
            val: Further examples of other patients to choose hyper-parameters with; None where there are none.
            seed: Of the initialisation, the order of batches and augmentation.
            options: The method's own.

        Raises:
            MedclipError: As `check`; NON_FINITE for features or a loss that are none.
        """
        self.check(options)
        return self._function()(base, text, train, val, seed=seed, **options)

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the method does not have, and values of another kind than it takes.

        Raises:
            MedclipError: WRONG_USE, with the options that there are, or with what the option takes.
        """
        check_options(self.name, self._function(), options)

    def _function(self) -> Fit:
        module, function = self.target.split(":")
        return getattr(import_module(module), function)


METHODS = {
    m.name: m
    for m in (
        Method("zero-shot", "Zero-shot", "medclip.adaptation.frozen.zero_shot:fit_zero_shot"),
        Method("linear-probe", "Linear probe", "medclip.adaptation.frozen.linear_probe:fit_linear_probe"),
        Method("lp++", "LP++ (text-initialised probe)", "medclip.adaptation.frozen.lp_plus_plus:fit_lp_plus_plus"),
        Method("ridge", "Ridge", "medclip.adaptation.frozen.classical:fit_ridge"),
        Method("knn", "Nearest neighbours", "medclip.adaptation.frozen.classical:fit_knn"),
        Method("lda", "Linear discriminant", "medclip.adaptation.frozen.classical:fit_lda"),
        Method("tip", "Tip-Adapter", "medclip.adaptation.frozen.tip_adapter:fit_tip"),
        Method("tip-f", "Tip-Adapter-F", "medclip.adaptation.frozen.tip_adapter:fit_tip_f"),
        Method("clip-adapter", "CLIP-Adapter", "medclip.adaptation.frozen.clip_adapter:fit_clip_adapter"),
        Method("coop", "CoOp", "medclip.adaptation.prompts.coop:fit_coop"),
        Method("biomedcoop", "BiomedCoOp loss", "medclip.adaptation.prompts.biomedcoop:fit_biomedcoop"),
        Method("cocoop", "CoCoOp", "medclip.adaptation.prompts.cocoop:fit_cocoop"),
        Method("svd", "CLIP-SVD", "medclip.adaptation.towers.methods:fit_svd", trains_towers=True),
        Method("lora", "LoRA", "medclip.adaptation.towers.methods:fit_lora", trains_towers=True),
        Method("norm", "LayerNorm tuning", "medclip.adaptation.towers.methods:fit_norm", trains_towers=True),
        Method("full", "Full fine-tuning", "medclip.adaptation.towers.methods:fit_full", trains_towers=True),
    )
}


def find_method(name: str) -> Method:
    """Give a method by name.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    if name not in METHODS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no method named {name!r}.", hint=did_you_mean(name, METHODS, "Methods are")
        )
    return METHODS[name]
