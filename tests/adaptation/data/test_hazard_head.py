"""The head of a risk gives the logits of the trained layer, of the years that are asked."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from medclip.adaptation.data.heads import HazardHead, load_head
from medclip.text.vocabulary.load import load_task
from medclip.training.steps.supervised import RiskHead, folded, head_of, supervised_loss, targets_of

TASK = load_task("breast_cancer_risk")
NAMES = tuple(c.name for c in TASK.classes)
KEY = '[false, "mammography", null, {"breast_cancer_risk": %s}]'


def _head(classes: tuple[str, ...]) -> RiskHead:
    torch.manual_seed(0)
    head = head_of(TASK, classes, 6)
    assert isinstance(head, RiskHead)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    return head


def test_the_folded_head_gives_the_logits_of_the_trained_one() -> None:
    features = normalize(torch.randn(7, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    for classes in (NAMES, (NAMES[0], NAMES[4])):
        head = _head(classes)
        arrays = folded(TASK, classes, head.state_dict())
        own = load_head("hazard", arrays)
        assert isinstance(own, HazardHead)
        again = load_head("hazard", own.arrays())
        expected = head(features).detach().numpy()
        assert expected.shape == (7, len(classes))
        assert (np.diff(expected) >= 0).all()
        for one in (own, again):
            np.testing.assert_allclose(one.logits(features.numpy(), None), expected, atol=1e-5)


def test_years_beyond_the_follow_up_are_not_known_and_change_no_loss() -> None:
    keys = [KEY % months for months in ('{"event_months": 14, "followup_months": 60}', '{"followup_months": 30}')]
    target = targets_of(TASK, NAMES, [*keys, KEY % "{}", ""])
    nan = torch.nan
    expected = [[0, 1, 1, 1, 1], [0, 0, nan, nan, nan], [nan] * 5, [nan] * 5]
    torch.testing.assert_close(target, torch.tensor(expected), equal_nan=True)
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    changed = torch.where(target.isnan(), logits + 9, logits)
    assert float(supervised_loss(logits, target, "risk")) == float(supervised_loss(changed, target, "risk"))
    seven = supervised_loss(logits, target, "risk") * 7
    torch.testing.assert_close(seven, supervised_loss(logits, target.nan_to_num(), "risk") * 0 + _sum(logits, target))


def _sum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    known = ~target.isnan()
    return torch.nn.functional.binary_cross_entropy_with_logits(logits[known], target[known], reduction="sum")
