"""A place in no layout is refused with what was seen there and with every layout that would be understood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from medclip import lazy
from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.interchange.layouts import table
from medclip.models.interchange.layouts.layout import Layout, Place, Source
from medclip.models.interchange.layouts.table import LAYOUTS, read_layout
from medclip.models.packs.pack import load_model
from tests.kits.layouts import BPE_TEXT, MEAN, SENTENCES, STD, VIT, plain_state, random_model


def refusal(path: Path) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        read_layout(path)
    return caught.value


def test_the_names_of_layouts_are_unique_and_their_code_lies_in_files_of_their_names() -> None:
    names = [row.name for row in LAYOUTS]
    assert len(set(names)) == len(names)
    for row in LAYOUTS:
        file = row.matches.__module__.rpartition(".")[2]  # that of several begins with what their names begin with
        assert row.name.startswith(file.removesuffix("_layouts"))


def _read_house(place: Place) -> Source:
    config = json.loads((place.path / "house.json").read_text())
    pixels = {"size": 32, "mean": MEAN, "std": STD}
    weights = place.find_weights("house.safetensors")
    return Source(config, weights, None, pixels, place.path, _without_prefix, layout="house")


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("net."): value for name, value in state.items()}


HOUSE = Layout(
    "house", "folder of this test", "a folder with house.json", lambda place: "house.json" in place.names, _read_house
)


@pytest.mark.parametrize("way", ["a row of the table", "an entry point of another package"])
def test_a_layout_of_ones_own_is_imported_by_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "a row of the table":
        monkeypatch.setattr(table, "LAYOUTS", (HOUSE, *LAYOUTS))
    else:
        monkeypatch.setattr(
            lazy, "_entries", lambda group: {"house": f"{__name__}:HOUSE"} if group == "medclip.layouts" else {}
        )
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": BPE_TEXT}
    model, folder = random_model(config), tmp_path / "theirs"
    folder.mkdir()
    (folder / "house.json").write_text(json.dumps(config))
    save_file({f"net.{name}": value for name, value in plain_state(model).items()}, folder / "house.safetensors")
    pack = load_model(import_model(folder, tmp_path / "pack"))
    assert pack.card.created_from["layout"] == "house"
    with torch.no_grad():
        theirs = model.encode_text(torch.from_numpy(pack.tokenizer.encode(SENTENCES[:2])).long(), normalize=True)
    np.testing.assert_allclose(pack.encode_text(SENTENCES[:2]), theirs.numpy(), atol=1e-5)


def test_a_folder_in_no_layout_is_refused_with_what_was_seen_and_what_is_understood(tmp_path: Path) -> None:
    config = {"model_type": "sam", "architectures": ["SamModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"shared.weight": torch.zeros(3, 4)}, tmp_path / "model.safetensors")
    error = refusal(tmp_path)
    assert error.reason is Reason.PACK_INVALID
    for seen in ("config.json, model.safetensors", "'sam'", "SamModel", "shared.weight [3, 4]"):
        assert seen in error.message
    assert error.hint
    for row in LAYOUTS:
        assert f"{row.title}: {row.looks_like}" in error.hint


def test_a_file_that_is_no_dual_encoder_is_refused_by_its_tensors_also_as_a_pickle(tmp_path: Path) -> None:
    state = {f"layer{i}.weight": torch.zeros(2, i + 1) for i in range(9)}
    save_file(state, tmp_path / "w.safetensors")
    assert "layer0.weight [2, 1]" in refusal(tmp_path / "w.safetensors").message
    assert "and 5 more" in refusal(tmp_path / "w.safetensors").message
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(MedclipError, match=r"layer0\.weight \[2, 1\]"):
        import_model(tmp_path / "w.pt", tmp_path / "pack")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pt", "w.safetensors"]


def test_weights_split_over_files_are_read_whole_and_a_missing_file_is_named(tmp_path: Path) -> None:
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": {"width": 16, "heads": 2, "layers": 2}}
    state = plain_state(random_model(config))
    names = list(state)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({n: state[n] for n in part}, tmp_path / file)
    index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    source = read_layout(tmp_path)
    assert [p.name for p in source.weights] == list(parts)
    (tmp_path / "b.safetensors").unlink()
    assert "b.safetensors is missing" in refusal(tmp_path).message
    index["weight_map"]["x"] = "../b.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(tmp_path).reason is Reason.PACK_INVALID
