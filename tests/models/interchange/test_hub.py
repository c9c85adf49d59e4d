"""A public checkpoint loads by its hub name, from a cache in the hub's layout and without network."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.find_source import Missing, fetch, fetch_model
from medclip.models.interchange.load_start import load_hub
from tests.kits.hf_models import SIZE, TEXTS, save_clip
from tests.kits.layouts import (
    MEAN,
    SENTENCES,
    VIT,
    bert_folder,
    bert_text,
    features,
    hub_folder,
    images,
    plain_state,
    preset_file,
    random_model,
)

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
REVISION = "0" * 40


def _cache(root: Path, weights: str | None) -> open_clip.CLIP:
    repository = root / "models--org--tiny"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    (snapshot / "open_clip_config.json").write_text(json.dumps(CONFIG))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**CONFIG["model_cfg"])
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    if weights and weights.endswith(".safetensors"):
        save_file(state, snapshot / weights)
    elif weights:
        torch.save(state, snapshot / weights)
    return model.eval()


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("name", ["org/tiny", "hf-hub:org/tiny"])
def test_a_cached_checkpoint_loads_with_its_weights_tokenizer_and_normalisation(
    tmp_path: Path, name: str, weights: str
) -> None:
    theirs = _cache(tmp_path, weights)
    ours = load_hub(name, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert (ours.preprocess.size_px, ours.preprocess.mean) == (32, (0.5, 0.5, 0.5))
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a chest x-ray"])
    with torch.inference_mode():
        image_features = theirs.encode_image(ours.normalise(images), normalize=True).numpy()
        text_features = theirs.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(ours.encode_image(images), image_features, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(["a chest x-ray"]), text_features, atol=1e-5)


def test_a_hub_pickle_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    _cache(tmp_path, None)
    torch.save({"state_dict": Path("x")}, next(tmp_path.rglob("snapshots/*")) / "open_clip_pytorch_model.bin")
    with pytest.raises(MedclipError, match="can run code") as caught:
        load_hub("org/tiny", tmp_path)
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


def test_weights_that_are_neither_in_the_cache_nor_reachable_are_not_found(tmp_path: Path) -> None:
    _cache(tmp_path, None)
    with pytest.raises(MedclipError, match="weights are not in the hub's cache, and HF_HUB_OFFLINE=1") as caught:
        load_hub("org/tiny", tmp_path)
    assert caught.value.reason is Reason.PACK_NOT_FOUND
    assert "$HF_HOME" in caught.value.hint


def _snapshot(root: Path, repository: str) -> Path:
    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    return folder / "snapshots" / REVISION


def test_biomedclip_by_its_hub_name_is_converted_and_its_bert_is_found_in_the_cache(tmp_path: Path) -> None:
    bert = bert_folder(_snapshot(tmp_path, "microsoft/bert"))
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": bert_text(bert)}
    theirs = random_model(config)
    folder = _snapshot(tmp_path, "microsoft/biomed")
    told = {**config, "text_cfg": bert_text("microsoft/bert")}
    hub_folder(folder, told, plain_state(theirs), "open_clip_pytorch_model.bin")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(bert / name, folder / name)
    ours = load_hub("microsoft/biomed", tmp_path)
    tokens = torch.from_numpy(ours.tokenizer.encode(SENTENCES))
    image, text = features(theirs, ours.normalise(images()), tokens)
    np.testing.assert_allclose(ours.encode_image(images()), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(SENTENCES), text, atol=1e-5)
    shutil.rmtree(tmp_path / "models--microsoft--bert")
    with pytest.raises(MedclipError, match="text model 'microsoft/bert'") as caught:
        load_hub("microsoft/biomed", tmp_path)
    assert "--text-folder" in caught.value.hint


def test_a_model_of_transformers_is_known_by_its_hub_name_too(tmp_path: Path) -> None:
    theirs: Any = save_clip(_snapshot(tmp_path, "vinid/plip"))
    ours = load_hub("vinid/plip", tmp_path)
    ids = torch.from_numpy(ours.tokenizer.encode(TEXTS))
    with torch.inference_mode():
        text = torch.nn.functional.normalize(theirs.get_text_features(ids).pooler_output, dim=-1).numpy()
    np.testing.assert_allclose(ours.encode_text(TEXTS), text, atol=1e-5)


class _Hub:
    """Stands in for the network: answers each question with an error, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.asked: list[str] = []
        self.error = error
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", self._answer)

    def _answer(self, url: str, timeout: float) -> None:
        assert timeout <= 10
        self.asked.append(url.rpartition("/")[2])
        logging.getLogger("huggingface_hub.utils").warning("thrown while requesting HEAD")
        raise self.error


def _answer(kind: type[Any]) -> Exception:
    return kind("no", response=mock.MagicMock())


def test_without_a_network_the_hub_is_asked_once_and_says_nothing_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = _Hub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(MedclipError, match="could not be reached") as caught:
        fetch_model("org/tiny", str(tmp_path))
    assert caught.value.reason is Reason.PACK_NOT_FOUND
    assert hub.asked == ["open_clip_config.json"]
    assert not caplog.records
    assert fetch("org/tiny", "vocab.txt", str(tmp_path)) is Missing.UNREACHABLE


def test_a_repository_without_weights_and_one_that_is_not_there_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _Hub(monkeypatch, _answer(errors.RemoteEntryNotFoundError))
    with pytest.raises(MedclipError, match="no such file") as caught:
        fetch_model("org/tiny", str(tmp_path))
    assert caught.value.reason is Reason.PACK_NOT_FOUND
    assert hub.asked == [
        "open_clip_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]
    hub.error = _answer(errors.RepositoryNotFoundError)
    with pytest.raises(MedclipError, match="no such repository") as caught:
        fetch_model("org/tiny", str(tmp_path))
    assert caught.value.reason is Reason.PACK_NOT_FOUND
    with pytest.raises(MedclipError, match="no such repository"):
        fetch_model("not a name", str(tmp_path))


def test_a_name_that_is_not_in_the_cache_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="'org/other'") as caught:
        load_hub("org/other", tmp_path)
    assert caught.value.reason is Reason.PACK_NOT_FOUND


def test_a_cache_that_lacks_the_file_about_pixels_is_told_from_a_model_that_has_none(tmp_path: Path) -> None:
    folder = _snapshot(tmp_path, "vinid/plip")
    save_clip(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MedclipError, match="json is not in the hub's cache, and HF_HUB_OFFLINE") as caught:
        load_hub("vinid/plip", tmp_path)
    assert "$HF_HOME" in caught.value.hint
    assert "--preset" in caught.value.hint
    known = folder.parents[1] / ".no_exist" / REVISION
    known.mkdir(parents=True)
    (known / "preprocessor_config.json").touch()  # what the client writes where the hub has no such file
    with pytest.raises(MedclipError, match="come without a file that says how their authors treat images"):
        load_hub("vinid/plip", tmp_path)
    assert fetch("vinid/plip", "preprocessor_config.json", str(tmp_path)) is Missing.ABSENT
    ours = load_hub("vinid/plip", tmp_path, preset=preset_file(tmp_path / "presets", SIZE))
    assert (ours.preprocess.resize, ours.preprocess.mean) == ("shortest", tuple(MEAN))


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_split_weights_are_fetched_file_by_file(tmp_path: Path, index: str) -> None:
    folder = _snapshot(tmp_path, "vinid/plip")
    save_clip(folder)
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    (folder / index).write_text(json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}))
    with pytest.raises(MedclipError, match=r"part-2\.safetensors is not in the hub's cache") as caught:
        load_hub("vinid/plip", tmp_path)
    assert caught.value.reason is Reason.PACK_NOT_FOUND


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    _cache(tmp_path, "open_clip_model.safetensors")
    config = tmp_path / "models--org--tiny" / "snapshots" / REVISION / "open_clip_config.json"
    values = json.loads(config.read_text())
    values["model_cfg"]["embed_dim"] = 24
    config.write_text(json.dumps(values))
    with pytest.raises(MedclipError) as caught:
        load_hub("org/tiny", tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID
