"""A back-end that is named exports its graph once; a graph that was changed is made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.models.backends import load
from medclip.models.backends.choice import choose_backend, kept_graph
from medclip.models.backends.known import BACKENDS
from medclip.models.model import Model
from medclip.models.packs.pack import load_model

CONTENT = b"a graph of a tower"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the back-ends that were exported for."""
    names: list[str] = []
    monkeypatch.setattr(load, "make_graph", lambda model, kind: names.append(kind.name) or CONTENT)
    return names


def test_the_graph_is_exported_once_for_all_back_ends_that_run_the_same(
    models: dict[str, Model], exports: list[str], tmp_path: Path
):
    for name in ("onnx", "openvino", "onnx"):
        assert kept_graph(models["conv"], BACKENDS[name], "d" * 64, tmp_path) == CONTENT
    assert exports == ["onnx"]
    kept_graph(models["conv"], BACKENDS["onnx-int8"], "d" * 64, tmp_path)
    kept_graph(models["conv"], BACKENDS["onnx"], "e" * 64, tmp_path)
    assert exports == ["onnx", "onnx-int8", "onnx"]
    assert kept_graph(models["conv"], BACKENDS["bf16"], "d" * 64, tmp_path) is None


def test_a_graph_that_was_changed_or_made_by_another_library_is_made_again(
    models: dict[str, Model], exports: list[str], tmp_path: Path
):
    kind = BACKENDS["onnx"]
    kept_graph(models["conv"], kind, "d" * 64, tmp_path)
    (path,), (note,) = tmp_path.rglob("*.onnx"), tmp_path.rglob("*.json")
    changes = {
        "cut off": lambda: path.write_bytes(CONTENT[:-1]),
        "one bit": lambda: path.write_bytes(CONTENT[:-1] + b"n"),
        "gone": path.unlink,
        "no note": note.unlink,
        "no JSON": lambda: note.write_text("{"),
        "a list": lambda: note.write_text("[]"),
        "another torch": lambda: note.write_text(
            json.dumps(json.loads(note.read_text()) | {"made_with": {"torch": "1.0"}})
        ),
    }
    for number, change in enumerate(changes.values(), 2):
        change()
        assert kept_graph(models["conv"], kind, "d" * 64, tmp_path) == CONTENT
        assert len(exports) == number
        assert path.read_bytes() == CONTENT
        assert kept_graph(models["conv"], kind, "d" * 64, tmp_path) == CONTENT
        assert len(exports) == number


def test_a_home_that_cannot_be_written_to_keeps_none_and_the_run_goes_on(
    models: dict[str, Model], exports: list[str], tmp_path: Path
):
    (tmp_path / "graphs").write_text("a file in the folder's place")
    for _ in range(2):
        assert kept_graph(models["conv"], BACKENDS["onnx"], "d" * 64, tmp_path) == CONTENT
    assert exports == ["onnx", "onnx"]


def test_a_named_back_end_computes_the_same_from_the_graph_that_it_kept(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if lacking := BACKENDS["onnx"].lacking():
        pytest.skip(lacking)
    model = load_model(pack)
    choice = choose_backend("onnx", pack, tmp_path)
    assert choice is not None
    images = np.zeros((2, *model.preprocess.image_shape), "uint8")
    first = choice.load(model).encode_image(images)
    monkeypatch.setattr(load, "make_graph", None)
    assert (choice.load(model).encode_image(images) == first).all()
