"""What import and export say and refuse; that features are equal stands in test_layouts."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from medclip.api.models import export_model, import_model
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.interchange.import_export import crop_effect
from medclip.models.interchange.load_start import Started, load_start
from medclip.models.packs.card import Card, licence_names
from medclip.models.packs.manifest import WITHOUT_FUSION, read_config, seal
from medclip.models.packs.pack import load_model, save_pack, update_pack, verify_pack
from medclip.models.towers.build import build_clip
from medclip.models.towers.view_fusion import ViewFusion
from tests.kits.layouts import (
    BPE_TEXT,
    PIXELS,
    VIT,
    add_architecture,
    bert_folder,
    features,
    hub_folder,
    images,
    plain_state,
    random_model,
)
from tests.models.conftest import CAPTIONS

CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = plain_state(random_model(CONFIG))
    return hub_folder(tmp_path_factory.mktemp("clip"), CONFIG, state, "open_clip_model.safetensors")


def with_bert(folder: Path, **more: Any) -> Started:
    bert = bert_folder(folder / "bert")
    name = add_architecture(folder / "configs", "tiny-ViT", CONFIG)
    return load_start(name, text_folder=bert, overrides={"text_cfg": more})


def saved(folder: Path, started: Started, **options: Any) -> Path:
    started.tokenizer.save(folder / "tokenizer")
    size = started.config["vision_cfg"]["image_size"]
    return save_pack(
        folder / "pack",
        started.model,
        folder / "tokenizer",
        replace(started.preprocess, size_px=size),
        Card(name="made"),
        config=started.config,
        base=started.base,
        **options,
    )


def test_a_pack_with_clips_tokenizer_has_no_tokenizer_file(clip: Path, tmp_path: Path) -> None:
    pack = import_model(clip, tmp_path / "pack")
    assert sorted(p.name for p in pack.iterdir()) == [
        "card.json",
        "manifest.json",
        "model.safetensors",
        "open_clip_config.json",
    ]
    assert {v.dtype for v in load_file(pack / "model.safetensors").values()} == {torch.float32}
    assert load_model(pack).preprocess.mean == (0.481, 0.457, 0.408)


def test_the_modalities_are_the_users_word_and_need_no_hash(clip: Path, tmp_path: Path) -> None:
    pack = import_model(clip, tmp_path / "pack", name="quilt", modalities=["pathology"])
    info = verify_pack(pack)
    assert (info.name, info.modalities, info.tasks) == ("quilt", ("pathology",), ())
    with pytest.raises(MedclipError, match="no modality 'histo'") as caught:
        import_model(clip, tmp_path / "other", modalities=["histo"])
    assert caught.value.reason is Reason.WRONG_USE


def test_a_trained_pack_with_a_bert_is_whole_and_small_and_loads_in_open_clip(tmp_path: Path) -> None:
    pack = saved(tmp_path, with_bert(tmp_path))
    for path in sorted((tmp_path / "bert").iterdir()):
        path.unlink()  # nothing outside the pack is needed
    ours = load_model(pack)
    assert (pack / "text" / "config.json").is_file()
    folder = export_model(pack, tmp_path / "exported")
    assert any("absolute path" in note for note in folder.notes)
    theirs = open_clip.create_model(f"local-dir:{folder.folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder.folder}")(CAPTIONS)
    pixels = images()
    image, text = features(theirs, ours.normalise(pixels), tokens)
    np.testing.assert_allclose(ours.encode_image(pixels), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(CAPTIONS), text, atol=1e-5)
    again = load_start(pack)
    assert torch.equal(again.model.logit_scale, theirs.logit_scale)
    assert again.config["text_cfg"]["hf_model_name"] == "text"


def test_a_changed_text_config_is_seen_and_one_outside_the_pack_is_refused(tmp_path: Path) -> None:
    pack = saved(tmp_path, with_bert(tmp_path))
    text = (pack / "text" / "config.json").read_text()
    (pack / "text" / "config.json").write_text(text.replace("512", "513"))
    with pytest.raises(MedclipError, match=r"text/config\.json does not have the bytes"):
        load_model(pack)
    (pack / "text" / "config.json").write_text(text)
    values = json.loads((pack / "open_clip_config.json").read_text())
    for place in ("../bert", str(tmp_path / "bert")):
        values["model_cfg"]["text_cfg"]["hf_model_name"] = place
        (pack / "open_clip_config.json").write_text(json.dumps(values))
        seal(pack, {})
        with pytest.raises(MedclipError, match="lies in text/") as caught:
            load_model(pack)
        assert caught.value.reason is Reason.PACK_INVALID


def test_end_token_pooling_needs_our_pooler_and_the_export_says_so(tmp_path: Path) -> None:
    pack = saved(tmp_path, with_bert(tmp_path, hf_pooler_type="eos_pooler"))
    exported = export_model(pack, tmp_path / "exported")
    assert any("medclip.models.towers.poolers" in note for note in exported.notes)
    theirs = open_clip.create_model(f"local-dir:{exported.folder}")  # the pooler is registered in this process
    tokens = open_clip.get_tokenizer(f"local-dir:{exported.folder}")(CAPTIONS)
    text = features(theirs, torch.zeros(1, 3, 32, 32), tokens)[1]
    np.testing.assert_allclose(load_model(pack).encode_text(CAPTIONS), text, atol=1e-5)


def test_a_timm_tower_of_another_size_keeps_it_in_a_pack_and_the_export_says_so(tmp_path: Path) -> None:
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config = CONFIG | {"vision_cfg": vision}
    folder = hub_folder(tmp_path / "m", config, plain_state(random_model(config)), "open_clip_model.safetensors")
    started = load_start(folder, overrides={"vision_cfg": {"image_size": 96}})
    pack = saved(tmp_path, started, half=False)
    pixels = load_model(pack).normalise(images(96))
    tokens = torch.from_numpy(started.tokenizer.encode(CAPTIONS))
    np.testing.assert_allclose(
        load_model(pack).encode_image(images(96)), features(started.model, pixels, tokens)[0], atol=1e-5
    )
    assert any("not the timm tower's own" in note for note in export_model(pack, tmp_path / "exported").notes)


def test_our_own_packs_are_exported_bit_by_bit_without_notes(pack: Path, tmp_path: Path) -> None:
    exported = export_model(pack, tmp_path / "exported")
    assert exported.notes == ()
    made, stored = load_file(exported.folder / "open_clip_model.safetensors"), load_file(pack / "model.safetensors")
    assert all(torch.equal(made[name], value) for name, value in stored.items())
    theirs = open_clip.create_model(f"local-dir:{exported.folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{exported.folder}")(CAPTIONS)
    np.testing.assert_array_equal(tokens.numpy(), load_model(pack).tokenizer.encode(CAPTIONS))
    text = features(theirs, torch.zeros(1, 3, 64, 64), tokens)[1]
    np.testing.assert_allclose(load_model(pack).encode_text(CAPTIONS), text, atol=1e-5)


def test_terms_of_the_weights_go_into_an_export_and_come_back_with_it(pack: Path, tmp_path: Path) -> None:
    own = shutil.copytree(pack, tmp_path / "own")
    update_pack(own, extra_files={"LICENSE.txt": b"Pass it on.", "LICENSE.other.txt": b"Cite me."})
    exported = export_model(own, tmp_path / "exported").folder
    assert (exported / "LICENSE.txt").read_text() == "Pass it on."
    assert (exported / "LICENSE.other.txt").read_text() == "Cite me."
    import_model(exported, tmp_path / "again")
    verify_pack(tmp_path / "again")
    assert licence_names(tmp_path / "again") == ("LICENSE.other.txt", "LICENSE.txt")


def test_the_fusion_of_views_stays_behind_and_the_export_says_so(pack: Path, tmp_path: Path) -> None:
    config = read_config(pack)["model_cfg"] | {"fusion": ViewFusion(24).to_config()}
    clip = load_model(pack).clip
    clip.fusion = ViewFusion(24)
    vision = {"timm_model_name": "test_vit", "timm_pool": "mean", "image_size": 64}
    alone = {"vision_cfg": vision, "fusion": config["fusion"]}
    tower = build_clip(alone)
    for number, (model, model_cfg, words) in enumerate(((clip, config, pack), (tower, alone, None))):
        own = save_pack(tmp_path / f"own{number}", model, words, Preprocess(64), Card(name="own"), config=model_cfg)
        exported = export_model(own, tmp_path / f"exported{number}")
        assert WITHOUT_FUSION in exported.notes
        if words is None:
            weights = load_file(exported.folder / "model.safetensors")
            assert weights
            assert not any(name.startswith("fusion") for name in weights)
        else:
            open_clip.create_model(f"local-dir:{exported.folder}")


def test_a_folder_in_use_and_a_changed_pack_are_not_exported(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("years of work")
    with pytest.raises(MedclipError) as caught:
        export_model(pack, tmp_path / "used")
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    (pack / "card.json").write_text("{}")
    with pytest.raises(MedclipError, match=r"card\.json"):
        export_model(pack, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_import_that_fails_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    add_architecture(tmp_path / "configs", "wide-ViT", CONFIG | {"embed_dim": 99})
    (tmp_path / "out").mkdir()
    with pytest.raises(MedclipError, match="do not fit"):
        import_model(clip / "open_clip_model.safetensors", tmp_path / "out" / "pack", architecture="wide-ViT")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(MedclipError, match="no weights to import"):
        import_model("wide-ViT", tmp_path / "out" / "pack")


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    config = CONFIG | {"vision_cfg": VIT | {"image_size": [32, 64]}}
    save_file(plain_state(random_model(config)), tmp_path / "w.safetensors")
    name = add_architecture(tmp_path / "configs", "long-ViT", config)
    with pytest.raises(MedclipError, match="square"):
        import_model(tmp_path / "w.safetensors", tmp_path / "pack", architecture=name, **PIXELS)
    assert not (tmp_path / "pack").exists()


def test_importing_again_replaces_the_pack_only_when_asked(clip: Path, tmp_path: Path) -> None:
    import_model(clip, tmp_path / "pack", name="one")
    refused = refusal(clip, tmp_path / "pack", name="two")
    assert refused.reason is Reason.OUTPUT_IN_USE
    assert "--overwrite" in refused.hint
    assert load_model(tmp_path / "pack").name == "one"
    assert load_model(import_model(clip, tmp_path / "pack", name="two", overwrite=True)).name == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]


def refusal(source: Path, out: Path, **options: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        import_model(source, out, **options)
    return caught.value


def test_a_place_where_no_folder_can_be_is_refused_before_any_work(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "rec.yaml").write_text("x")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("years of work")
    places = {
        tmp_path / "rec.yaml": "is a file",
        tmp_path / "rec.yaml" / "x": "a file stands where a folder should be",
        tmp_path / ("a" * 300): "name is too long",
        Path(""): "names nothing",
        tmp_path / "used": "no model pack",
        clip: "source lies here",
    }
    for out, word in places.items():
        refused = refusal(tmp_path / "no-such-model", out) if out != clip else refusal(clip, out, overwrite=True)
        assert word in str(refused)
        assert refused.reason in (Reason.WRONG_USE, Reason.OUTPUT_IN_USE)
        assert refused.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rec.yaml", "used"]


@pytest.mark.parametrize("name", ["rec.yaml/x", "a" * 300])
def test_an_export_is_refused_where_no_folder_can_be(pack: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "rec.yaml").write_text("x")
    with pytest.raises(MedclipError) as caught:
        export_model(pack, tmp_path / name)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_name_too_long_for_any_file_is_not_found(tmp_path: Path) -> None:
    assert refusal(Path("a" * 300), tmp_path / "pack").reason is Reason.PACK_NOT_FOUND


@pytest.mark.parametrize(
    ("part", "key", "value", "word"),
    [
        ("vision_cfg", "width", 0, r"vision_cfg\.width is 0"),
        ("vision_cfg", "image_size", "big", r"vision_cfg\.image_size is 'big'|cannot build"),
        ("vision_cfg", "image_size", 33, r"image_size 33 is no multiple of its patch_size 8"),
        ("vision_cfg", "timm_model_name", "hf-hub:org/vit", "hub model 'hf-hub:org/vit'"),
        ("text_cfg", "heads", 3, "cannot build"),
        ("preprocess_cfg", "mean", "abc", r"preprocess_cfg\.mean is abc"),
        ("preprocess_cfg", "std", [0.3, 0, 0.3], r"preprocess_cfg\.std is \[0\.3, 0, 0\.3\]"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_file_and_key(
    clip: Path, tmp_path: Path, part: str, key: str, value: Any, word: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(clip, folder)
    values = json.loads((folder / "open_clip_config.json").read_text())
    (values if part == "preprocess_cfg" else values["model_cfg"])[part][key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    refused = refusal(folder, tmp_path / "pack")
    assert re.search(word, refused.message)
    assert refused.reason is Reason.PACK_INVALID
    assert refused.where
    assert refused.where.startswith(str(folder))
    assert refused.hint


def test_a_checkpoint_is_named_by_its_own_name_and_not_a_temporary_one(tmp_path: Path) -> None:
    add_architecture(tmp_path / "configs", "wide-ViT", CONFIG | {"embed_dim": 99})
    torch.save(plain_state(random_model(CONFIG)), tmp_path / "bare.pt")
    refused = refusal(tmp_path / "bare.pt", tmp_path / "pack", architecture="wide-ViT")
    assert "do not fit" in refused.message
    assert refused.where == str(tmp_path / "bare.pt")


@pytest.mark.parametrize("prefix", ["model.", "module.", "clip.", "model.module."])
def test_the_prefix_of_a_module_around_the_model_comes_off(tmp_path: Path, prefix: str) -> None:
    name = add_architecture(tmp_path / "configs", "tiny-ViT", CONFIG)
    state = plain_state(random_model(CONFIG))
    torch.save({"state_dict": {prefix + k: v for k, v in state.items()}}, tmp_path / "lightning.ckpt")
    pack = import_model(tmp_path / "lightning.ckpt", tmp_path / "pack", architecture=name, **PIXELS)
    assert torch.equal(load_file(pack / "model.safetensors")["visual.proj"], state["visual.proj"])


@pytest.mark.parametrize("around", [lambda c: c, lambda c: {"model_cfg": c, "preprocess_cfg": {}}])
def test_an_architecture_may_be_a_json_file(tmp_path: Path, around: Any) -> None:
    state = plain_state(random_model(CONFIG))
    torch.save(state, tmp_path / "bare.pt")
    (tmp_path / "tiny.json").write_text(json.dumps(around(CONFIG)))
    pack = import_model(tmp_path / "bare.pt", tmp_path / "pack", architecture=str(tmp_path / "tiny.json"), **PIXELS)
    assert torch.equal(load_file(pack / "model.safetensors")["visual.proj"], state["visual.proj"])


@pytest.mark.parametrize("text", ["{", "[]", '{"embed_dim": 16}', '{"vision_cfg": 1, "text_cfg": {}}'])
def test_a_json_file_that_describes_no_model_is_refused_by_name(tmp_path: Path, text: str) -> None:
    torch.save(plain_state(random_model(CONFIG)), tmp_path / "bare.pt")
    (tmp_path / "tiny.json").write_text(text)
    refused = refusal(tmp_path / "bare.pt", tmp_path / "pack", architecture=str(tmp_path / "tiny.json"), **PIXELS)
    assert (refused.reason, refused.where) == (Reason.PACK_INVALID, str(tmp_path / "tiny.json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    state = plain_state(random_model(CONFIG))
    state["visual.proj"][0, 0] = value
    folder = hub_folder(tmp_path / "m", CONFIG, state, "open_clip_model.safetensors")
    refused = refusal(folder, tmp_path / "pack")
    assert refused.reason is Reason.NON_FINITE
    assert "visual.proj" in refused.message
    assert refused.where == str(folder / "open_clip_model.safetensors")
    assert not (tmp_path / "pack").exists()


def test_an_import_says_what_the_crops_do_to_vectors_and_nothing_where_images_stay_whole() -> None:
    model = load_model("medclip-mini")
    cut = crop_effect(model, replace(model.preprocess, resize="shortest"))
    cosines = [float(value) for value in re.findall(r"0\.\d{3}|1\.000", cut)]
    assert len(cosines) == 4
    assert min(cosines) < 0.999  # the crops do change what this model sees
    assert "centre cut leaves 33%" in cut
    assert crop_effect(model, replace(model.preprocess, resize="squash", crop="none")) == ""
