"""Packs load whole and unchanged, or are refused with a sentence that names the file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medclip.adapters.registry import get_adapter, preprocessing_of
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs import pack as packs
from medclip.models.packs.card import Card, TaskCard
from medclip.models.packs.manifest import read_manifest, refuse_pickles, seal
from medclip.models.packs.pack import check_pack, find_pack, list_packs, load_model, save_pack, update_pack, verify_pack
from tests.models.conftest import CAPTIONS, SIZE, random_clip, tiny_config, xray


def _refusal(pack: Path, **options: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        load_model(pack, **options)
    return caught.value


def _images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def test_open_clip_loads_the_same_folder_and_gives_equal_features(pack: Path) -> None:
    ours = load_model(pack)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{pack}")
    tokens = open_clip.get_tokenizer(f"local-dir:{pack}")(CAPTIONS)
    theirs.eval()
    images = _images(5)
    with torch.inference_mode():
        image_features = theirs.encode_image(ours.normalise(images), normalize=True).numpy()
        text_features = theirs.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_array_equal(tokens.numpy(), ours.tokenizer.encode(CAPTIONS))
    np.testing.assert_allclose(ours.encode_image(images), image_features, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(CAPTIONS), text_features, atol=1e-5)
    assert ours.logit_scale == pytest.approx(float(theirs.logit_scale.exp().detach()))


@pytest.mark.parametrize("shape", [(64, 64), (63, 64), (100, 80), (90, 200), (31, 50), (517, 389)])
def test_open_clips_own_image_path_gives_our_pixels(pack: Path, shape: tuple[int, int]) -> None:
    from medclip.imaging.geometry import letterbox

    ours = load_model(pack)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{pack}")
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    mine = ours.normalise(letterbox(np.asarray(image), SIZE)[None])[0]
    torch.testing.assert_close(transform(image), mine, atol=1e-6, rtol=0)


def test_weights_are_stored_in_half_precision_and_loaded_as_float32(pack: Path) -> None:
    stored = load_file(pack / "model.safetensors")
    assert {v.dtype for v in stored.values() if v.is_floating_point() and v.ndim >= 2} == {torch.float16}
    assert {p.dtype for p in load_model(pack).clip.parameters()} == {torch.float32}


def test_a_changed_byte_in_any_file_is_an_error_that_names_the_file(pack: Path) -> None:
    for path in sorted(pack.iterdir()):
        if path.name == "manifest.json":
            continue
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        error = _refusal(pack)
        assert error.reason is Reason.PACK_INVALID
        assert path.name in str(error)
        path.write_bytes(before)
    load_model(pack)


def test_a_missing_file_and_an_unlisted_file_are_errors_that_name_them(pack: Path) -> None:
    (pack / "open_clip_model.safetensors").write_bytes(b"x")
    assert "open_clip_model.safetensors is not listed" in str(_refusal(pack))
    (pack / "open_clip_model.safetensors").unlink()
    (pack / "train_hashes.txt").unlink()
    assert "train_hashes.txt is missing" in str(_refusal(pack))


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "a.pth", "b.pkl", "c.ckpt", "d.PT"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_pickle_beside_the_weights_is_refused_and_not_run(
    pack: Path, name: str, verify: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (pack / name).write_bytes(pickle.dumps(_Hostile()))
    error = _refusal(pack, verify=verify)
    assert error.reason is Reason.UNSAFE_WEIGHTS
    assert name in str(error)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused(pack: Path) -> None:
    torch.save({"a": torch.zeros(1)}, pack / "model.safetensors")
    seal(pack, xray())
    assert _refusal(pack).reason is Reason.UNSAFE_WEIGHTS
    (pack / "model.safetensors").write_bytes(pickle.dumps(_Hostile()))
    seal(pack, xray())
    assert _refusal(pack).reason is Reason.UNSAFE_WEIGHTS


@pytest.mark.parametrize(
    "head", [bytes([0x80, p]) for p in (2, 3, 4, 5)] + [b"PK\x03\x04", b"PK\x05\x06"], ids=lambda head: head.hex()
)
def test_every_protocol_of_pickle_and_every_zip_is_known_by_its_first_bytes(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "model.SafeTensors").write_bytes(head + b"\x95" + b"{" * 40)
    with pytest.raises(MedclipError) as caught:
        refuse_pickles(tmp_path)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580, 0x4B50])
def test_safetensors_whose_header_length_looks_like_a_pickle_are_not_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}".ljust(length))
    refuse_pickles(tmp_path)
    assert load_file(tmp_path / "a.safetensors") == {}


def test_truncated_weights_and_weights_of_another_model_are_refused(pack: Path) -> None:
    whole = (pack / "model.safetensors").read_bytes()
    (pack / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    seal(pack, xray())
    assert "cannot be read" in str(_refusal(pack))
    (pack / "model.safetensors").write_bytes(whole)
    config = json.loads((pack / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["layers"] = 2
    (pack / "open_clip_config.json").write_text(json.dumps(config))
    seal(pack, xray())
    assert "do not fit the architecture" in str(_refusal(pack))


def test_another_preprocessing_names_the_modality_and_both_hashes(pack: Path) -> None:
    seal(pack, {"xray": "0123456789abcdef"})
    error = _refusal(pack)
    assert error.reason is Reason.PREPROCESSING_MISMATCH
    for word in ("xray", "0123456789abcdef", get_adapter("xray").preprocessing):
        assert word in str(error)
    seal(pack, {"xray": get_adapter("xray").preprocessing, "generic": get_adapter(None).preprocessing})
    assert load_model(pack).preprocess.adapters["generic"] == get_adapter(None).preprocessing


def test_a_pack_that_saw_ecgs_as_sheets_is_refused_where_they_are_drawn_otherwise(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(pack, xray() | {"ecg:signal": preprocessing_of("ecg:signal")})
    load_model(pack)  # of before the drawing had a hash
    seal(pack, xray() | {"ecg:signal": preprocessing_of("ecg:signal"), "ecg:drawn": preprocessing_of("ecg:drawn")})
    load_model(pack)
    monkeypatch.setattr("medclip.adapters.model_images.ECG_DPI", 120)
    error = _refusal(pack)
    assert error.reason is Reason.PREPROCESSING_MISMATCH
    assert "ecg:drawn" in str(error)


def test_preprocessing_of_a_modality_that_nothing_reads_is_a_mismatch(pack: Path) -> None:
    seal(pack, xray() | {"no_such_modality": "0123456789abcdef"})
    assert "no adapter" in str(_refusal(pack))


@pytest.mark.parametrize("lost", ["xray", "mri", "generic"])
def test_a_manifest_that_lacks_the_preprocessing_of_something_on_the_card_is_refused(pack: Path, lost: str) -> None:
    tasks = {
        "modality": TaskCard(classes=("ct", "mri", "xray")),
        "chest_xray_view": TaskCard(classes=("ap", "pa")),
        "brain_mri_tumour": TaskCard(classes=("glioma", "no_tumour")),
    }
    card = Card(name="tiny", modalities=("ct", "mri", "xray"), tasks=tasks)
    update_pack(pack, card=card)
    whole = {name: get_adapter(name).preprocessing for name in ("xray", "mri", "generic")}
    seal(pack, whole)
    load_model(pack)  # no task is about ct: it can only be told apart from the others
    seal(pack, {name: value for name, value in whole.items() if name != lost})
    error = _refusal(pack)
    assert error.reason is Reason.PREPROCESSING_MISMATCH
    assert f"on {lost} images" in str(error)
    with pytest.raises(MedclipError, match=f"on {lost} images"):
        verify_pack(pack)


def test_a_manifest_without_any_preprocessing_is_refused_unless_the_card_names_none(pack: Path) -> None:
    seal(pack, {})
    assert _refusal(pack).reason is Reason.PREPROCESSING_MISMATCH
    update_pack(pack, card=Card(name="tiny"))
    assert load_model(pack).preprocess.adapters == {}


def test_a_pack_that_wants_other_pixels_than_we_make_is_refused(pack: Path) -> None:
    config = json.loads((pack / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "stretched"
    (pack / "open_clip_config.json").write_text(json.dumps(config))
    seal(pack, xray())
    error = _refusal(pack)
    assert error.reason is Reason.PACK_INVALID
    assert error.where == str(pack)


def test_a_checkpoint_that_is_no_pack_says_how_to_make_one_of_it(tmp_path: Path) -> None:
    (tmp_path / "plip").mkdir()
    with pytest.raises(MedclipError, match=r"no manifest\.json") as caught:
        find_pack(tmp_path / "plip")
    assert "may be a checkpoint" not in caught.value.hint
    weights = tmp_path / "plip" / "pytorch_model.bin"
    weights.write_bytes(b"x")
    for place, reason in (
        (tmp_path / "plip", Reason.PACK_INVALID),
        (weights, Reason.PACK_INVALID),
        ("hf-hub:vinid/plip", Reason.PACK_NOT_FOUND),
    ):
        with pytest.raises(MedclipError) as caught:
            find_pack(place)
        assert caught.value.reason is reason
        assert f"medclip models import {place} --out PACK" in caught.value.hint


def test_a_name_that_does_not_exist_lists_what_does(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BUILTIN", pack.parent)
    assert find_pack("tiny") == pack
    assert load_model("tiny").name == "tiny"
    with pytest.raises(MedclipError, match="are: tiny") as caught:
        find_pack("tinny")
    assert caught.value.reason is Reason.PACK_NOT_FOUND
    for name in ("", "../tiny", "tiny/../nothing"):
        with pytest.raises(MedclipError):
            find_pack(name)
    monkeypatch.setattr(packs, "BUILTIN", tmp_path / "nowhere")
    with pytest.raises(MedclipError, match="No pack came"):
        find_pack("tiny")


def test_a_folder_without_a_manifest_is_no_pack(tmp_path: Path) -> None:
    assert "not a model pack" in str(_refusal(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "model.pkl").write_bytes(
        pickle.dumps(1)
    )  # nobody walks through the folder before that is said
    for call in (find_pack, verify_pack, load_model):
        with pytest.raises(MedclipError, match="not a model pack") as caught:
            call(tmp_path)
        assert caught.value.reason is Reason.PACK_INVALID


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "files": {}, "preprocessing": {}}'])
def test_a_broken_manifest_is_refused(pack: Path, text: str) -> None:
    (pack / "manifest.json").write_text(text)
    assert _refusal(pack).reason is Reason.PACK_INVALID


def test_listing_and_verifying_say_what_is_there(pack: Path) -> None:
    (info,) = list_packs(pack.parent)
    assert (info.name, info.version, info.num_files, info.modalities) == ("tiny", "1", 7, ("xray",))
    assert verify_pack(pack) == info
    (pack / "card.json").write_text("{}")
    with pytest.raises(MedclipError, match=r"card\.json"):
        verify_pack(pack)


def _config(pack: Path, part: str, **values: object) -> None:
    config = json.loads((pack / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= values
    (pack / "open_clip_config.json").write_text(json.dumps(config))


FAULTS = {
    "images of 100,000 px": lambda pack: _config(pack, "vision_cfg", image_size=100_000),
    "towers of other sizes than the weights": lambda pack: _config(pack, "text_cfg", width=96),
    "a tower that nobody can build": lambda pack: _config(pack, "vision_cfg", timm_model_name="no_such_tower"),
    "no tokenizer": lambda pack: (pack / "tokenizer.json").write_text("{}"),
    "no weights": lambda pack: (pack / "model.safetensors").write_bytes(b"x" * 64),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_loaded_is_refused_by_the_check_in_the_same_words(pack: Path, fault: str) -> None:
    """The files are as the manifest says: whoever made the pack sealed the fault in."""
    FAULTS[fault](pack)
    seal(pack, read_manifest(pack).preprocessing)
    with pytest.raises(MedclipError) as refused:
        check_pack(pack)
    assert refused.value.reason is Reason.PACK_INVALID
    assert str(refused.value) == str(_refusal(pack))


def test_images_that_are_too_large_are_refused_before_anything_is_loaded(pack: Path) -> None:
    FAULTS["images of 100,000 px"](pack)
    seal(pack, read_manifest(pack).preprocessing)
    with pytest.raises(MedclipError, match="100000; 4,096 pixels are the most"):
        verify_pack(pack)


@pytest.mark.parametrize("content", [b"", b"x" * 64])
def test_a_guard_that_is_none_is_refused(pack: Path, content: bytes) -> None:
    update_pack(pack, extra_files={"open_set.safetensors": content})
    with pytest.raises(MedclipError, match="is no guard") as refused:
        check_pack(pack)
    assert refused.value.reason is Reason.PACK_INVALID


def test_a_pack_may_be_updated_and_stays_valid(pack: Path) -> None:
    update_pack(pack, card=Card(name="tiny", version="2"), extra_files={"open_set.json": b"{}"})
    assert verify_pack(pack).version == "2"
    assert load_model(pack).card.version == "2"


def test_saving_replaces_a_pack_but_never_anything_else(pack: Path, tmp_path: Path) -> None:
    config = tiny_config(load_model(pack).tokenizer.vocab_size)  # type: ignore[attr-defined]
    model, card = random_clip(config), Card(name="again")
    target = tmp_path / "target"
    for _ in range(2):
        save_pack(target, model, pack, Preprocess(SIZE), card, config=config)
    assert load_model(target).name == "again"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(MedclipError) as caught:
        save_pack(other, model, pack, Preprocess(SIZE), card, config=config)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert (other / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "target", "tiny"]
