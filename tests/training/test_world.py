"""A world of one does what a world of many does, without asking anybody."""

from __future__ import annotations

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.training.ranks import World, joined


def test_alone_everything_is_ones_own() -> None:
    world = World()
    assert world.is_first
    assert world.gather({"a": [1, "ü"]}) == [{"a": [1, "ü"]}]
    assert torch.equal(world.sum(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))
    assert world.first(lambda: 7) == 7
    world.barrier()


def test_what_the_first_rank_raises_is_raised() -> None:
    def refuse() -> None:
        raise MedclipError(Reason.DISK_FULL, "full.", where="here", hint="Make room.")

    with pytest.raises(MedclipError, match=r"here: full\. Make room\.") as caught:
        World().first(refuse)
    assert caught.value.reason is Reason.DISK_FULL


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as world:
        assert (world.rank, world.size, world.group) == (0, 1, None)


def test_incomplete_variables_of_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(MedclipError, match="torchrun"), joined("cpu"):
        pass
