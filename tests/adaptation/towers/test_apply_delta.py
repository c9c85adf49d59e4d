from __future__ import annotations

import pytest
import torch

from medclip.adaptation.towers.methods import apply_delta
from medclip.errors import MedclipError, Reason
from tests.kits.adapt_towers import model_of
from tests.kits.adaptation import words


def test_a_change_of_norms_is_put_in_and_the_base_stays() -> None:
    base = model_of("vit", words(3)).clip
    value = torch.full((32,), 1.5)
    made = apply_delta("norm", base, {"visual.ln_post.weight": value}, {})
    state, before = made.state_dict(), base.state_dict()
    assert torch.equal(state["visual.ln_post.weight"], value)
    assert {k for k, v in state.items() if not torch.equal(v, before[k])} == {"visual.ln_post.weight"}


def test_low_rank_factors_are_added_at_their_scale() -> None:
    base = model_of("vit", words(3)).clip
    name = "visual.transformer.resblocks.1.mlp.c_fc"
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(2, 32, generator=generator), torch.randn(128, 2, generator=generator)
    made = apply_delta("lora", base, {f"{name}.A": low, f"{name}.B": high}, {"alpha": 6.0, "rank": 2})
    change = made.get_submodule(name).weight - base.get_submodule(name).weight  # type: ignore[operator]
    torch.testing.assert_close(change, 3.0 * high @ low, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("method", "delta", "settings"),
    [
        ("norm", {"visual.nowhere.weight": torch.zeros(3)}, {}),
        ("full", {"visual.ln_post.weight": torch.zeros(3)}, {}),
        (
            "lora",
            {"visual.nowhere.A": torch.zeros(2, 3), "visual.nowhere.B": torch.zeros(3, 2)},
            {"alpha": 1, "rank": 2},
        ),
        ("svd", {"visual.nowhere": torch.zeros(3)}, {"rank_ratio": 1.0, "rank_compat": False}),
        ("svd", {}, {}),
        ("coop", {}, {}),
    ],
)
def test_a_change_of_another_base_or_method_is_refused(method: str, delta: dict, settings: dict) -> None:
    with pytest.raises(MedclipError) as e:
        apply_delta(method, model_of("vit", words(3)).clip, delta, settings)
    assert e.value.problem().reason is Reason.PACK_INVALID
