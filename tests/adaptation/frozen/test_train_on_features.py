"""Training on frozen features: the last epoch is the model, and the rate is that of the lowest log loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medclip.adaptation.budget import RATES, passes
from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.methods import find_method
from medclip.statistics.metrics.selection_score import log_loss
from tests.kits.adaptation import FakeModel, made_up, words

MIX = {"tip-f": {"alpha": 20.0, "beta": 5.0}, "clip-adapter": {}}


@pytest.mark.parametrize("method", MIX)
def test_validation_chooses_the_rate_and_not_the_epoch(method: str) -> None:
    text = words()
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, noise=2.0) for s in (1, 2))
    val = replace(val, patients=tuple(f"val {p}" for p in val.patients))
    fit = find_method(method).fit
    chosen = fit(model, text, train, val, seed=0, **MIX[method]).settings
    each = {r: fit(model, text, train, None, seed=0, lr=r, **MIX[method]) for r in RATES[method]}
    losses = {r: log_loss(unit_logits(f.head, val), val.targets) for r, f in each.items()}
    assert chosen["lr"] == min(losses, key=losses.__getitem__)
    assert chosen["log_loss_by_rate"] == {f"{r:g}": pytest.approx(v, abs=1e-4) for r, v in losses.items()}
    assert chosen["epochs"] == passes(24) == 100
    assert chosen["images"] == 2400


@pytest.mark.parametrize("method", MIX)
def test_a_method_that_is_worse_than_the_prompts_says_so(method: str) -> None:
    text = words()
    model = FakeModel(text, noise=0.1)
    train, val = (made_up(24, seed=s, noise=0.5) for s in (1, 2))
    wrong = replace(train, targets=(train.targets + 1) % 3)
    (note,) = find_method(method).fit(model, text, wrong, val, seed=0, **MIX[method]).notes
    assert note.startswith("None of the rates tried came below the base's prompts on 24 files of validation patients")
    assert not find_method(method).fit(model, text, wrong, val, seed=0, lr=0.001, **MIX[method]).notes
