"""Checkpoints appear whole, hold no pickle, and the newest that is sound is found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from medclip.errors import MedclipError, Reason
from medclip.training.checkpoints import state as store
from medclip.training.ranks import World

ONE = World()


def _pair() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def _tensors(model: torch.nn.Module, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    names = {id(p): n for n, p in model.named_parameters()}
    return {f"model.{k}": v for k, v in model.state_dict().items()} | store.optimizer_tensors(optimizer, names)


def test_tensors_come_back_bit_by_bit_and_keep_the_models_memory_layout(tmp_path: Path) -> None:
    model, optimizer = _pair()
    path = store.save_checkpoint(tmp_path, 7, _tensors(model, optimizer), {"x": 1}, ONE)
    fresh = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = torch.optim.AdamW(fresh.parameters())
    store.fill_optimizer(other)
    store.load_checkpoint(path, _tensors(fresh, other), ONE)
    found, state, damaged = store.newest_sound(tmp_path)
    assert (found, state["x"], state["step"], damaged) == (path, 1, 7, [])
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        assert set(optimizer.state[a]) == set(other.state[b]) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(optimizer.state[a][k], other.state[b][k]) for k in optimizer.state[a])


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else(tmp_path: Path) -> None:
    path = store.save_checkpoint(tmp_path, 1, _tensors(*_pair()), {}, ONE)
    names = sorted(p.name for p in path.iterdir())
    assert [Path(n).suffix for n in names] == [".safetensors", ".json"]
    with safe_open(path / names[0], "pt") as f:
        assert "model.weight" in f.keys()  # noqa: SIM118


def test_only_the_last_two_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    tensors = _tensors(*_pair())
    for step in (1, 2, 3, 10):
        store.save_checkpoint(tmp_path, step, tensors, {}, ONE)
    (tmp_path / "step-0000011").mkdir()
    assert [p.name for p in store.checkpoints(tmp_path)] == ["step-0000003", "step-0000010"]


@pytest.mark.parametrize("where", ["write_data", "state", "fsync", "replace"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    tensors = _tensors(*_pair())
    store.save_checkpoint(tmp_path, 1, tensors, {}, ONE)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    if where == "state":
        monkeypatch.setattr(Path, "write_text", full)
    elif where != "write_data":
        monkeypatch.setattr(os, where, full)
    else:
        monkeypatch.setattr(store.HuggingFaceStorageWriter, "write_data", full)
    with pytest.raises(MedclipError, match="the disk is full") as caught:
        store.save_checkpoint(tmp_path, 2, tensors, {}, ONE)
    assert caught.value.reason is Reason.DISK_FULL
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]
    assert store.newest_sound(tmp_path)[0] == tmp_path / "step-0000001"


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "state"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    tensors = _tensors(*_pair())
    first = store.save_checkpoint(tmp_path, 1, tensors, {}, ONE)
    last = store.save_checkpoint(tmp_path, 2, tensors, {}, ONE)
    weights = next(last.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(data[:-4])
    elif damage == "flipped":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "missing":
        weights.unlink()
    else:
        (last / "state.json").write_text("{")
    assert store.newest_sound(tmp_path)[::2] == (first, [last])


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    path = store.save_checkpoint(tmp_path, 1, _tensors(*_pair()), {}, ONE)
    with pytest.raises(MedclipError, match="step-0000001") as caught:
        store.load_checkpoint(path, {"model.other": torch.zeros(3)}, ONE)
    assert caught.value.reason is Reason.CORRUPT


def test_every_file_of_a_checkpoint_is_checked(tmp_path: Path) -> None:
    tensors = _tensors(*_pair())
    first = store.save_checkpoint(tmp_path, 1, tensors, {}, ONE)
    last = store.save_checkpoint(tmp_path, 2, tensors, {}, ONE)
    state = json.loads((last / store.STATE).read_text())
    state["files"]["of-another-rank.safetensors"] = "0" * 64
    (last / "of-another-rank.safetensors").write_bytes(b"not what was written")
    (last / store.STATE).write_text(json.dumps(state))
    assert store.newest_sound(tmp_path)[::2] == (first, [last])
