"""Checkpoints appear whole, and a broken one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.training import checkpoint as store
from medclip.training.optim import Ema, learning_rate


def _pair() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_tensors_come_back_bit_by_bit_and_keep_the_models_memory_layout(tmp_path: Path) -> None:
    model, optimizer = _pair()
    path = store.save_checkpoint(tmp_path, 7, model, optimizer, None, {"x": 1})
    fresh, other = _pair()
    store.load_checkpoint(path, fresh, other, None)
    assert store.read_state(path) == {"x": 1, "step": 7}
    for a, b in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        assert all(torch.equal(optimizer.state[a][k], other.state[b][k]) for k in optimizer.state[a])


def test_only_the_last_two_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    model, optimizer = _pair()
    for step in (1, 2, 3, 10):
        store.save_checkpoint(tmp_path, step, model, optimizer, None, {})
    (tmp_path / "step-0000011").mkdir()
    assert [p.name for p in store.checkpoints(tmp_path)] == ["step-0000003", "step-0000010"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = _pair()
    store.save_checkpoint(tmp_path, 1, model, optimizer, None, {})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(MedclipError) as caught:
        store.save_checkpoint(tmp_path, 2, model, optimizer, None, {})
    assert caught.value.reason is Reason.DISK_FULL
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]


def test_a_cut_checkpoint_is_named(tmp_path: Path) -> None:
    model, optimizer = _pair()
    path = store.save_checkpoint(tmp_path, 1, model, optimizer, None, {})
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(MedclipError, match="step-0000001") as caught:
        store.load_checkpoint(path, model, optimizer, None)
    assert caught.value.reason is Reason.CORRUPT


def test_the_average_follows_the_model_and_copies_counters() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked.fill_(5)  # type: ignore[union-attr, operator]
    average.update(model, step=10**6)
    torch.testing.assert_close(average.state["weight"], torch.full((2,), 1.2))
    assert int(average.state["num_batches_tracked"]) == 5


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [learning_rate(s, base=1.0, warmup_steps=4, total_steps=20) for s in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(rates) == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(20, base=1.0, warmup_steps=4, total_steps=20) == pytest.approx(0)
    assert learning_rate(0, base=1.0, warmup_steps=0, total_steps=2) == 1.0
