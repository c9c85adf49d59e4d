"""The precision of a run is chosen once."""

from __future__ import annotations

import pytest
import torch

from medclip.objectives import block
from medclip.training.ranks import allow_fast_products, choose_precision

CPU, CARD = torch.device("cpu"), torch.device("cuda")


def test_a_card_with_bfloat16_uses_it_and_all_else_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_it, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has_it=has_it: has_it)
        assert choose_precision("auto", CARD, None) == expected
    assert choose_precision("auto", CPU, None) == "fp32"


def test_a_run_that_goes_on_elsewhere_keeps_its_precision_and_what_a_recipe_says_holds_everywhere() -> None:
    assert choose_precision("auto", CPU, "bf16") == "bf16"
    assert choose_precision("auto", CARD, "fp32") == "fp32"
    assert choose_precision("fp32", CARD, "fp32") == "fp32"
    assert choose_precision("bf16", CPU, None) == "bf16"


def test_products_of_float32_are_fast_on_cards_only_and_never_in_a_loss() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        allow_fast_products(CPU)
        assert torch.get_float32_matmul_precision() == "highest"
        allow_fast_products(CARD)
        assert torch.get_float32_matmul_precision() == "high"
        with block._all_bits(CARD):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
