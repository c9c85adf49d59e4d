"""Text towers with rotary positions: the golden turn, its invariants, and every room that touches a text tower."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import medclip
from medclip.adaptation.prompts.prompted_text_tower import embed, encode_embedded
from medclip.adaptation.towers.split_attention import SplitMultihead, join_attention, split_attention
from medclip.errors import MedclipError, Reason
from medclip.explaining.tower import explicit_attention
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.interchange.import_export import export_pack
from medclip.models.interchange.load_start import Started, load_start
from medclip.models.packs.card import Card
from medclip.models.packs.pack import load_model, save_pack
from medclip.models.towers import rotary_text
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.layers import lock_text, recompute_activations
from medclip.models.towers.rotary_text import RotaryTextTransformer, base_of, turned
from medclip.models.towers.tokens import text_tokens
from medclip.training.steps.fast_towers import encode_short

CONTEXT = 512


@pytest.fixture(scope="module")
def absolute() -> Started:
    return load_start("medclip-mini")


@pytest.fixture(scope="module")
def rotary() -> Started:
    started = load_start("medclip-mini", overrides={"text_cfg": {"context_length": CONTEXT, "rotary": {}}})
    started.model.eval()
    return started


@pytest.fixture(scope="module")
def pack(rotary: Started, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rotary")
    rotary.tokenizer.save(folder / "words")
    return save_pack(
        folder / "pack",
        rotary.model,
        folder / "words",
        rotary.preprocess,
        Card(name="turned"),
        config=rotary.config,
        half=False,
    )


@pytest.mark.golden
def test_the_turn_equals_the_golden_vector(golden: Path) -> None:
    stored = np.load(golden / "spec_clipin.npz", allow_pickle=False)
    out = turned(torch.from_numpy(stored["rope_in"])[None, None])[0, 0]
    np.testing.assert_allclose(out.numpy(), stored["rope_out_half_split"], atol=1e-6, rtol=0)


@given(seed=st.integers(0, 2**31), dim=st.sampled_from([2, 8, 64]), base=st.floats(100, 1e6))
def test_norms_are_kept_and_the_first_place_stays_as_it_is(seed: int, dim: int, base: float) -> None:
    states = torch.randn(1, 2, 7, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out = turned(states, base)
    torch.testing.assert_close(out.norm(dim=-1), states.norm(dim=-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(out[:, :, 0], states[:, :, 0], rtol=0, atol=0)


@given(seed=st.integers(0, 2**31), first=st.integers(0, 40), second=st.integers(0, 40), shift=st.integers(0, 40))
def test_products_depend_on_the_distance_of_places_alone(seed: int, first: int, second: int, shift: int) -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def product(m: int, n: int) -> float:
        at_each = [turned(x.expand(1, 1, 81, 8))[0, 0] for x in (query, key)]
        return float(at_each[0][m] @ at_each[1][n])

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=1e-6)


def test_states_of_half_precision_are_turned_in_float32() -> None:
    states = torch.randn(1, 1, 500, 64, generator=torch.Generator().manual_seed(0))
    exact, half = turned(states), turned(states.bfloat16())
    assert half.dtype == torch.bfloat16
    assert float((half.float() - exact).abs().max()) < 0.04  # the rounding of bf16; angles in bf16 would be off by 1


def test_without_the_turn_and_with_the_table_it_is_the_tower_that_it_was_made_of(
    absolute: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Any = copy.deepcopy(absolute.model).eval()
    student: Any = load_start("medclip-mini", overrides={"text_cfg": {"rotary": {}}}).model.eval()
    table = plain.text.positional_embedding
    tokens = torch.from_numpy(absolute.tokenizer.encode(["pneumonia", "a chest x-ray of the left lung, 2 views"]))
    with torch.no_grad():
        turned_away = student.encode_text(tokens, normalize=True)
        monkeypatch.setattr(rotary_text, "turned", lambda states, base: states)
        student.text.token_embedding.register_forward_hook(lambda _m, _i, out: out + table[: out.shape[1]])
        same, expected = (model.encode_text(tokens, normalize=True) for model in (student, plain))
        torch.testing.assert_close(same, expected, rtol=0, atol=1e-6)
    assert float((turned_away - expected).abs().max()) > 1e-2


def test_every_weight_but_the_table_is_that_of_the_start(absolute: Started, rotary: Started) -> None:
    before, after = absolute.model.state_dict(), rotary.model.state_dict()
    assert before.keys() - after.keys() == {"text.positional_embedding"}
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def long_text(word: str = "opacity") -> str:
    """500 tokens and more, of which `word` is far behind the context of the start."""
    words = ["lung"] * 400
    words[395] = word
    return " ".join(words)


def test_a_text_of_500_tokens_is_read_to_its_end(rotary: Started) -> None:
    model: Any = rotary.model
    ids = torch.full((2, CONTEXT), rotary.tokenizer.pad_id)
    row = torch.from_numpy(rotary.tokenizer.encode(["lung " * 600])[0])
    ids[:, :500] = row[:500]
    ids[:, 499] = rotary.tokenizer.eos_id
    ids[1, 400] = row[1] + 1
    with torch.no_grad():
        first, second = model.encode_text(ids, normalize=True)
        states = text_tokens(model, ids, rotary.tokenizer.pad_id).tokens_BLD
    assert float((first - second).abs().max()) > 1e-5  # of 1e-7 that rounding makes
    assert torch.equal(states[0, :400], states[1, :400])  # the causal mask stays
    assert not torch.equal(states[0, 400], states[1, 400])


def test_a_short_text_costs_no_more_than_its_tokens(rotary: Started) -> None:
    model: Any = copy.deepcopy(rotary.model).eval()
    ids = torch.from_numpy(rotary.tokenizer.encode(["a chest x-ray of the left lung", "pneumonia"]))
    lengths: list[int] = []
    model.text.ln_final.register_forward_hook(lambda _m, _i, out: lengths.append(out.shape[1]))
    with torch.no_grad():
        short, whole = model.encode_text(ids), model.train().encode_text(ids)
    assert lengths == [int((ids != rotary.tokenizer.pad_id).sum(1).max()), CONTEXT]
    torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", ["short", "tokens", "split", "explicit", "embedded", "recomputed"])
def test_other_ways_through_the_tower_give_its_features(rotary: Started, path: str) -> None:
    model: Any = copy.deepcopy(rotary.model).eval()
    words, pad = rotary.tokenizer, rotary.tokenizer.pad_id
    ids = torch.from_numpy(words.encode(["a chest x-ray of the left lung", "pneumonia"]))
    with torch.no_grad():
        expected = nn.functional.normalize(model.encode_text(ids), dim=-1)

    def through() -> Tensor:
        if path == "short":
            return encode_short(model, ids, pad)
        if path == "tokens":
            return text_tokens(model, ids, pad).pooled_BD
        if path == "embedded":
            return encode_embedded(model, ids, embed(model, ids), pad)
        if path == "explicit":
            with explicit_attention(model.text) as records:
                out = model.encode_text(ids)
            assert len(records) == 3
            return out
        if path == "recomputed":
            recompute_activations(model)
            return model.train().encode_text(ids)
        split_attention(model.text)
        assert sum(isinstance(module, SplitMultihead) for module in model.text.modules()) == 3
        out = model.encode_text(ids)
        join_attention(model.text)
        torch.testing.assert_close(nn.functional.normalize(model.encode_text(ids), dim=-1), expected)
        return out

    out = nn.functional.normalize(through(), dim=-1)
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


def test_a_pack_survives_being_saved_to_the_bit_and_reads_long_texts(rotary: Started, pack: Path) -> None:
    model = load_model(pack)
    section = json.loads((pack / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert (section["rotary"], section["context_length"]) == ({}, CONTEXT)
    stored = load_file(pack / "model.safetensors")
    assert not any("positional_embedding" in name for name in stored if name.startswith("text."))
    assert all(torch.equal(value, stored[name]) for name, value in rotary.model.state_dict().items())
    texts = [long_text(), long_text("effusion"), "pneumonia"]
    ids = torch.from_numpy(rotary.tokenizer.encode(texts))
    vectors = model.encode_text(texts)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-5
    with torch.no_grad():
        features: Any = rotary.model
        np.testing.assert_allclose(vectors, features.encode_text(ids, normalize=True).numpy(), atol=1e-6)
    assert not [p for p in pack.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".npy")]


def test_a_pack_is_embedded_searched_scored_and_adapted_like_others(rotary: Started, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"embed_dim": 16, "text_width": 16, "text_heads": 2, "text_layers": 2, "size_px": 32}
    config = default_config(
        vocab_size=rotary.tokenizer.vocab_size, context_length=CONTEXT, image_tower="test_efficientnet", **sizes
    )
    config["text_cfg"]["rotary"] = {}
    rotary.tokenizer.save(tmp_path / "words")
    torch.manual_seed(0)
    model = build_clip(config)
    pack = save_pack(tmp_path / "pack", model, tmp_path / "words", Preprocess(32), Card(name="turned"), config=config)
    (tmp_path / "films").mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,patient,finding"]
    for number in range(8):
        pixels = rng.integers(0, 90, (64, 64), dtype=np.uint8) + 160 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "films" / f"{number}.png")
        rows.append(f"{number}.png,p{number},{'bright' if number % 2 else 'dark'}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    only: dict[str, Any] = {"model": pack, "modality": "xray", "workers": 1}
    stored = medclip.embed(tmp_path / "films", tmp_path / "vectors", **only)
    hits = [medclip.search(stored, [text], model=pack).to_pandas() for text in ("a bright film", long_text())]
    assert [len(found) for found in hits] == [8, 8]
    assert not np.allclose(hits[0]["score"], hits[1]["score"])
    scores = medclip.score(
        tmp_path / "films", tmp_path / "scores", prompt=[long_text()], against=["a dark film"], **only
    )
    assert len(scores.to_pandas()) >= 8
    for method in ("coop", "svd"):
        changes = {"epochs": 1} if method == "coop" else {"steps": 2}
        where: dict[str, Any] = {"out": tmp_path / method, "images": tmp_path / "films"}
        medclip.adapt(table, "finding", method=method, shots=2, overrides=changes, **where, **only)
        adapted = load_model(tmp_path / method)
        assert type(adapted.clip.text) is RotaryTextTransformer
        assert adapted.encode_text([long_text()]).shape == (1, 16)


def test_a_start_with_rotary_positions_takes_another_context(pack: Path) -> None:
    started = load_start(pack, overrides={"text_cfg": {"context_length": 700}})
    assert started.tokenizer.encode(["lung"]).shape == (1, 700)
    model: Any = started.model
    assert not hasattr(model.text, "positional_embedding")


def test_open_clip_gets_no_export_of_it(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="rotary positions; open_clip has no form of it") as refused:
        export_pack(pack, tmp_path / "out")
    assert refused.value.reason is Reason.WRONG_USE
    assert not (tmp_path / "out").exists()


def test_weights_with_a_table_do_not_fit_a_rotary_pack(rotary: Started, absolute: Started) -> None:
    from medclip.models.towers.state_dict import load_weights

    with pytest.raises(MedclipError, match=r"text\.positional_embedding is unknown"):
        load_weights(build_clip(rotary.config), absolute.model.state_dict(), where=Path("weights"))


def test_a_longer_context_may_slow_the_turn_down() -> None:
    text_cfg = {"width": 128, "heads": 4, "context_length": 512, "rotary": {"scaled_from": 128}}
    assert base_of(text_cfg) == pytest.approx(10_000 * 4 ** (32 / 30))
    assert base_of(text_cfg | {"context_length": 100}) == 10_000
    assert base_of(text_cfg | {"rotary": {"base": 500}}) == 500


def config_of(**text: Any) -> dict[str, Any]:
    config = default_config(vocab_size=300, image_tower="test_efficientnet", text_width=16, text_heads=2, text_layers=1)
    config["text_cfg"] |= {"rotary": {}} | text
    return config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"hf_model_name": "."}, "one with hf_model_name"),
        ({"no_causal_mask": True}, "one with no_causal_mask"),
        ({"embed_cls": True}, "one with embed_cls"),
        ({"width": 6}, "heads of an odd width"),
        ({"rotary": {"base": -1}}, r"text_cfg\.rotary is .* numbers above 0"),
        ({"rotary": {"theta": 1}}, r"text_cfg\.rotary is .* numbers above 0"),
    ],
)
def test_towers_of_another_form_are_refused(text: dict[str, Any], said: str) -> None:
    with pytest.raises(MedclipError, match=said) as refused:
        build_clip(config_of(**text))
    assert refused.value.reason is Reason.PACK_INVALID


def test_layers_are_locked_as_in_any_other_tower() -> None:
    model = build_clip(config_of())
    locked = lock_text(model, unlocked_layers=1)
    assert {n for n, p in model.named_parameters() if n.startswith("text.") and p.requires_grad} == {
        "text.text_projection"
    }
    assert "text.transformer.resblocks.0.attn.in_proj_weight" in locked
