from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.models.towers.build import build_clip, default_config
from medclip.training.steps.fast_towers import encode_short

CONTEXT, END = 16, 299


@settings(max_examples=10)
@given(st.lists(st.integers(2, CONTEXT), min_size=1, max_size=5))
def test_captions_encoded_at_their_own_length_give_the_features_of_the_full_context(lengths: list[int]) -> None:
    torch.manual_seed(0)
    config = default_config(
        vocab_size=END + 1, context_length=CONTEXT, embed_dim=16, size_px=32, text_width=32, text_heads=2, text_layers=2
    )
    model = build_clip(config).eval()
    tokens = torch.zeros(len(lengths), CONTEXT, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(3, END, (length,))
        tokens[row, length - 1] = END
    mask = model.text.attn_mask  # type: ignore[union-attr]
    with torch.no_grad():
        short, full = encode_short(model, tokens), model.encode_text(tokens)  # type: ignore[operator]
    torch.testing.assert_close(short, full, atol=1e-5, rtol=1e-4)
    assert model.text.attn_mask is mask  # type: ignore[union-attr]


def test_the_number_of_columns_can_be_told_and_may_be_larger_than_needed() -> None:
    torch.manual_seed(0)
    config = default_config(
        vocab_size=END + 1, context_length=CONTEXT, embed_dim=16, size_px=32, text_width=32, text_heads=2, text_layers=2
    )
    model = build_clip(config).eval()
    tokens = torch.zeros(2, CONTEXT, dtype=torch.long)
    tokens[0, :3], tokens[1, :5] = torch.tensor([1, 7, END]), torch.tensor([1, 8, 9, 3, END])
    lengths = []
    model.text.transformer.register_forward_pre_hook(lambda m, args: lengths.append(args[0].shape[1]))  # type: ignore[union-attr, operator]
    with torch.no_grad():
        found = [encode_short(model, tokens, num_tokens=n) for n in (None, 5, 8)]
    assert lengths == [5, 5, 8]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=1e-4)
