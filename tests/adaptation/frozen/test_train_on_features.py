"""Training on frozen features: the epoch that validation examples like best is the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import take, unit_logits
from medclip.adaptation.frozen.train_on_features import train_epochs
from medclip.adaptation.methods import find_method
from medclip.statistics.metrics.selection_score import quality
from tests.kits.adaptation import FakeModel, made_up, words


def heads_of_training(multilabel: bool, validated: bool) -> tuple[list[LinearHead], LinearHead, int]:
    """Train zero-shot weights on answers that are wrong of the validation examples; give the head of each epoch too."""
    text = words(multilabel=multilabel)
    train, val = (made_up(24, seed=s, multilabel=multilabel, noise=1.0) for s in (1, 2))
    wrong = replace(train, targets=1 - train.targets if multilabel else (train.targets + 1) % 3)
    shots = take(FakeModel(text), text, wrong, val if validated else None)
    weight = torch.from_numpy(shots.zero.weight_DC.copy()).requires_grad_()
    heads: list[LinearHead] = []

    def head() -> LinearHead:
        heads.append(LinearHead(weight.detach().numpy().copy(), np.zeros(3, np.float32)))
        return heads[-1]

    optimizer = torch.optim.SGD([weight], lr=2.0)
    found, epoch = train_epochs(shots, optimizer, lambda f: f @ weight, head, epochs=12, batch_size=8, seed=0)
    return heads, found, epoch


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_first_of_the_best_epochs_on_validation_is_the_result(multilabel: bool) -> None:
    heads, found, epoch = heads_of_training(multilabel, validated=True)
    val = made_up(24, seed=2, multilabel=multilabel, noise=1.0)
    scores = [quality(unit_logits(h, val), val.targets) for h in heads]
    assert len(heads) == 12
    assert epoch == 1 + scores.index(max(scores)) < 12
    assert found is heads[epoch - 1]


def test_without_validation_examples_the_last_epoch_is_the_result() -> None:
    heads, found, epoch = heads_of_training(multilabel=False, validated=False)
    assert (len(heads), epoch) == (1, 12)
    assert found is heads[0]


@pytest.mark.parametrize("method", ["tip-f", "clip-adapter"])
def test_methods_state_the_epoch_that_was_chosen(method: str) -> None:
    text = words()
    model = FakeModel(text)
    train, val = (made_up(24, seed=s, noise=1.0) for s in (1, 2))
    wrong = replace(train, targets=(train.targets + 1) % 3)
    fit = find_method(method).fit
    options = {"alpha": 5.0, "beta": 5.0} if method == "tip-f" else {"ratio": 0.8}
    chosen = fit(model, text, wrong, val, seed=0, epochs=12, lr=0.05, **options)
    last = fit(model, text, wrong, None, seed=0, epochs=12, lr=0.05, **options)
    assert chosen.settings["epoch"] < last.settings["epoch"] == 12
    assert not all(np.array_equal(v, last.head.arrays()[n]) for n, v in chosen.head.arrays().items())
