"""Each public layout loads, with features equal to open_clip's own for the same tensors; so do import and export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from medclip.api.models import export_model, import_model
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.load_start import load_start
from medclip.models.packs.pack import load_model, verify_pack
from tests.kits.layouts import (
    BPE_TEXT,
    MEAN,
    PIXELS,
    SENTENCES,
    STD,
    VIT,
    add_architecture,
    bert_folder,
    bert_text,
    features,
    hub_folder,
    images,
    plain_state,
    random_model,
)

HUB_BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


@dataclass
class Layout:
    source: Path
    theirs: Any
    """What open_clip itself makes of the files."""
    tokenize: Any
    options: dict[str, Any]
    size: int = 32


def biomedclip(folder: Path) -> Layout:
    """timm ViT, BERT with CLS and two-layer projection, 256 word pieces; the config names the BERT on the hub."""
    bert = bert_folder(folder / "bert")
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": bert_text(bert),
    }
    model = random_model(config)
    told = {**config, "text_cfg": bert_text(HUB_BERT)}
    source = hub_folder(folder / "biomedclip", told, plain_state(model), "open_clip_pytorch_model.bin")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(bert / name, source / name)
    local = hub_folder(folder / "theirs", config, plain_state(model), "open_clip_pytorch_model.bin")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(bert / name, local / name)
    theirs = open_clip.create_model(f"local-dir:{local}")
    return Layout(source, theirs, open_clip.get_tokenizer(f"local-dir:{local}"), {"text_folder": bert}, 160)


def unimed_clip(folder: Path) -> Layout:
    """A training checkpoint: wrapped names, an optimiser beside them, no config; ViT with QuickGELU and a BERT."""
    bert = bert_folder(folder / "bert")
    architecture = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    name = add_architecture(folder / "configs", "tiny-ViT-quickgelu", architecture)
    config = {**architecture, "text_cfg": bert_text(bert)}
    model: Any = random_model(config)
    state = {f"module.{k}": v for k, v in plain_state(model).items()}
    state["module.text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    optimizer = torch.optim.AdamW(model.parameters())
    source = folder / "unimed.pt"
    torch.save({"epoch": 10, "name": "run", "state_dict": state, "optimizer": optimizer.state_dict()}, source)
    theirs = random_model(config, seed=1)
    open_clip.load_checkpoint(theirs, str(source))
    return Layout(
        source,
        theirs,
        HFTokenizer(str(bert), context_length=256),
        {"architecture": name, "text_folder": bert, **PIXELS},
    )


def pathgen_clip(folder: Path) -> Layout:
    """A bare pickled state dict of an open_clip ViT."""
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    name = add_architecture(folder / "configs", "tiny-ViT", config)
    source = folder / "pathgen-clip.pt"
    torch.save(plain_state(random_model(config)), source)
    theirs = open_clip.create_model(name, pretrained=str(source))
    return Layout(source, theirs, open_clip.get_tokenizer(name), {"architecture": name, **PIXELS})


def quiltnet(folder: Path) -> Layout:
    """Hugging Face layout with a pickle, 77 tokens of CLIP's own tokenizer."""
    config = {"embed_dim": 16, "vision_cfg": VIT | {"patch_size": 16}, "text_cfg": BPE_TEXT}
    source = hub_folder(folder / "quilt", config, plain_state(random_model(config)), "open_clip_pytorch_model.bin")
    local = f"local-dir:{source}"
    return Layout(source, open_clip.create_model(local), open_clip.get_tokenizer(local), {})


def bmc_clip(folder: Path) -> Layout:
    """Hugging Face layout with safetensors, twice as wide."""
    config = {"embed_dim": 24, "vision_cfg": VIT | {"width": 32, "layers": 3}, "text_cfg": BPE_TEXT | {"width": 24}}
    source = hub_folder(folder / "bmc", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    local = f"local-dir:{source}"
    return Layout(source, open_clip.create_model(local), open_clip.get_tokenizer(local), {})


@pytest.fixture(scope="module", params=[biomedclip, unimed_clip, pathgen_clip, quiltnet, bmc_clip])
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    make: Callable[[Path], Layout] = request.param
    return make(tmp_path_factory.mktemp(make.__name__))


@pytest.fixture(scope="module")
def imported(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_model(layout.source, tmp_path_factory.mktemp("imported") / "pack", **layout.options, license="MIT")


def test_an_imported_pack_gives_open_clips_tokens_and_features(layout: Layout, imported: Path) -> None:
    ours = load_model(imported)
    tokens = layout.tokenize(SENTENCES)
    np.testing.assert_array_equal(ours.tokenizer.encode(SENTENCES), tokens.numpy())
    pixels = images(layout.size)
    image, text = features(layout.theirs, ours.normalise(pixels), tokens)
    np.testing.assert_allclose(ours.encode_image(pixels), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(SENTENCES), text, atol=1e-5)
    assert np.ptp(image, axis=0).max() > 1e-3  # images differ: the comparison says something
    assert ours.logit_scale == pytest.approx(float(layout.theirs.logit_scale.exp().detach()))
    assert verify_pack(imported).name == "pack"


def test_every_weight_survives_the_import_without_loss(layout: Layout, imported: Path) -> None:
    found, expected = load_model(imported).clip.state_dict(), layout.theirs.state_dict()
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_exported_pack_loads_in_open_clip_with_equal_features(
    layout: Layout, imported: Path, tmp_path: Path
) -> None:
    folder = export_model(imported, tmp_path / "exported").folder
    ours = load_model(imported)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(SENTENCES)
    np.testing.assert_array_equal(tokens.numpy(), ours.tokenizer.encode(SENTENCES))
    pixels = images(layout.size)
    image, text = features(theirs, ours.normalise(pixels), tokens)
    np.testing.assert_allclose(ours.encode_image(pixels), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(SENTENCES), text, atol=1e-5)


def test_training_starts_from_a_pack_and_from_its_export(layout: Layout, imported: Path, tmp_path: Path) -> None:
    tokens = layout.tokenize(SENTENCES)
    pixels = load_model(imported).normalise(images(layout.size))
    expected = features(layout.theirs, pixels, tokens)
    exported = export_model(imported, tmp_path / "a").folder
    moved = exported.rename(tmp_path / "b")  # its absolute path leads nowhere now; the config lies beside it
    for source in (imported, moved):
        started = load_start(source)
        assert all(p.requires_grad and p.dtype == torch.float32 for p in started.model.parameters())
        np.testing.assert_array_equal(started.tokenizer.encode(SENTENCES), tokens.numpy())
        for found, wanted in zip(features(started.model, pixels, tokens), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_pickled_weights_are_not_started_from_and_the_refusal_says_how_to_convert(layout: Layout) -> None:
    if layout.source.is_dir() and list(layout.source.glob("*.safetensors")):
        assert load_start(layout.source).preprocess.mean == tuple(MEAN)
        assert load_start(layout.source).preprocess.std == tuple(STD)
        return
    with pytest.raises(MedclipError, match="medclip models import") as caught:
        load_start(layout.source, **{k: v for k, v in layout.options.items() if k not in PIXELS})
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


def test_the_card_of_an_imported_pack_says_where_it_came_from(layout: Layout, imported: Path) -> None:
    card = json.loads((imported / "card.json").read_text())
    assert card["licence"] == "MIT"
    assert card["tasks"] == {}
    assert card["created_from"]["imported_from"] == layout.source.name
    assert len(card["created_from"]["sha256"]) == 64
    assert any("not trained through" in limit for limit in card["limits"])
