"""Pickles become safetensors in another process, or are refused in a sentence; nothing in them ever runs."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.towers.weight_files import to_safetensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize(
    "content",
    [OrderedDict(STATE), {"model": STATE, "context_length": 77}, {"epoch": 3, "model_state_dict": STATE}],
    ids=["plain", "model", "model_state_dict"],
)
def test_a_state_dict_is_found_and_kept_bit_by_bit(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pt")
    made = load_file(to_safetensors(tmp_path / "c.pt", tmp_path / "deep" / "c.safetensors"))
    assert {k: v.dtype for k, v in made.items()} == {k: v.dtype for k, v in STATE.items()}
    assert all(torch.equal(made[k], v) for k, v in STATE.items())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["c.safetensors"]


def test_tied_and_transposed_tensors_of_torchs_old_format_are_written_out(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    content = {"a": weight, "tied": weight, "turned": weight.T, "input_resolution": 224}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    made = load_file(to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors"))
    assert sorted(made) == ["a", "tied", "turned"]
    assert torch.equal(made["tied"], weight)
    assert torch.equal(made["turned"], weight.T)


class _Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["pickle", "inside_a_checkpoint"])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    file, hostile = tmp_path / "c.pt", _Hostile(tmp_path / "owned")
    if how == "pickle":
        file.write_bytes(pickle.dumps(hostile))
    else:
        torch.save({"state_dict": STATE, "optimizer": hostile}, file)
    with pytest.raises(MedclipError, match=r"more than tensors|could not be converted") as caught:
        import_model(file, tmp_path / "pack", architecture="ViT-B-32")
    assert caught.value.reason in (Reason.UNSAFE_WEIGHTS, Reason.READ_ERROR)
    assert caught.value.where == str(file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pt"]  # no mark, no half a pack


def test_an_object_of_another_class_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "c.pt")
    with pytest.raises(MedclipError, match=r"argparse\.Namespace") as caught:
        to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS
    assert "state_dict alone" in caught.value.hint


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_code_and_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "c.pt")
    with pytest.raises(MedclipError, match="TorchScript") as caught:
        to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors")
    assert caught.value.reason is Reason.UNSAFE_WEIGHTS


@pytest.mark.parametrize("content", [{"a": 1, "b": torch.zeros(1)}, [torch.zeros(2)]], ids=["numbers", "list"])
def test_a_file_without_weights_says_so(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(MedclipError, match="no weights in it") as caught:
        to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors")
    assert caught.value.reason is Reason.READ_ERROR


def test_a_broken_file_is_a_read_error_and_leaves_nothing(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:-200])
    with pytest.raises(MedclipError) as caught:
        to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors")
    assert caught.value.reason in (Reason.READ_ERROR, Reason.UNSAFE_WEIGHTS)
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "word", "reason"),
    [
        (b"", "is empty", Reason.EMPTY_FILE),
        (b"epoch,loss\n1,2\n", "no checkpoint", Reason.READ_ERROR),
        (b"\x80\x02\x80", "damaged or cut off", Reason.READ_ERROR),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, content: bytes, word: str, reason: Reason) -> None:
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(MedclipError, match=word) as caught:
        to_safetensors(tmp_path / "c.pt", tmp_path / "c.safetensors")
    assert (caught.value.reason, caught.value.where) == (reason, str(tmp_path / "c.pt"))


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        to_safetensors(tmp_path / "no.pt", tmp_path / "c.safetensors")
    assert caught.value.reason is Reason.MISSING_FILE


def test_it_is_read_in_another_process_that_imports_nothing_from_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(STATE, tmp_path / "c.pt")
    (tmp_path / "torch.py").write_text("raise SystemExit('owned')")
    monkeypatch.chdir(tmp_path)

    def no_pickles(*args: object, **options: object) -> None:
        raise AssertionError("a pickle was loaded in this process")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, no_pickles)
    made = load_file(to_safetensors(Path("c.pt"), Path("c.safetensors")))
    np.testing.assert_array_equal(made["b"].numpy(), [1, 1])
