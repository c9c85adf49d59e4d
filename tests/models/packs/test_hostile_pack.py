"""Packs made to harm: nested beyond end, towers without end, files that lead elsewhere. Each ends in a sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import FILE_NAME, seal
from medclip.models.packs.pack import check_plausible, load_model, verify_pack
from tests.kits import bombs
from tests.kits.scoring import make_pack

CONFIG = "open_clip_config.json"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return make_pack(tmp_path / "pack")


def _sealed(pack: Path) -> None:
    known = json.loads((pack / FILE_NAME).read_text())["preprocessing"]
    seal(pack, known)


def _changed(pack: Path, change: Any) -> None:
    config = json.loads((pack / CONFIG).read_text())
    change(config["model_cfg"])
    (pack / CONFIG).write_text(json.dumps(config))
    _sealed(pack)


@pytest.mark.parametrize("nested", ["[" * 100_000 + "]" * 100_000, '{"a":' * 20_000 + "1" + "}" * 20_000])
@pytest.mark.parametrize("name", [CONFIG, FILE_NAME, "card.json"])
def test_json_that_nests_without_end_is_refused_with_a_sentence(pack: Path, name: str, nested: str) -> None:
    (pack / name).write_text(nested)
    if name != FILE_NAME:
        _sealed(pack)
    for use in (load_model, verify_pack):
        with pytest.raises(MedclipError) as caught:
            use(pack)
        assert caught.value.reason is Reason.PACK_INVALID


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_cfg", {"width": 10**6}, "numbers"),
        ("text_cfg", {"layers": 10**9}, "1,000,000,000 layers"),
        ("text_cfg", {"vocab_size": 10**9}, "numbers"),
        ("vision_cfg", {"layers": [3, 10**9, 3, 3]}, "1,000,000,000 layers"),
        ("vision_cfg", {"timm_model_name": None, "layers": 900, "width": 10**5, "patch_size": 16}, "numbers"),
        ("vision_cfg", {"width": 10**30}, "numbers"),
    ],
)
def test_towers_that_the_weights_cannot_fill_are_refused_before_they_are_built(
    pack: Path, part: str, values: dict[str, Any], words: str
) -> None:
    _changed(pack, lambda config: config[part].update(values))
    started = time.monotonic()
    with bombs.peak_memory() as peak, pytest.raises(MedclipError, match=words) as caught:
        load_model(pack)
    assert caught.value.reason is Reason.PACK_INVALID
    assert time.monotonic() - started < 20
    assert peak.num_bytes < 256 * 2**20


def test_shared_layers_and_factored_embeddings_are_plausible() -> None:
    """ALBERT-xxlarge: 235 million numbers in half precision, a width of 4,096, and 12 layers that share theirs."""
    config = {"hidden_size": 4096, "num_hidden_layers": 12, "vocab_size": 30_000, "embedding_size": 128}
    check_plausible(config, 2 * 235_000_000)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    manifest = json.loads((pack / FILE_NAME).read_text())
    manifest["files"]["../secret.txt"] = manifest["files"].pop("card.json")
    (pack / FILE_NAME).write_text(json.dumps(manifest))
    with pytest.raises(MedclipError, match=r"secret\.txt is missing") as caught:
        load_model(pack)
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_text_tower_from_elsewhere_is_refused(pack: Path) -> None:
    _changed(pack, lambda config: config["text_cfg"].update(hf_model_name="/etc"))
    with pytest.raises(MedclipError, match="own lies in text/"):
        load_model(pack)
