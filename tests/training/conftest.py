"""Shards of small made-up images, and a recipe that trains a tiny model on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kits.training import make_shards, tiny_recipe


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 patients, one made-up chest film each: with a bright disc it is labelled pneumonia. 20 train, 8 val."""
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def recipe(shards: Path) -> dict[str, Any]:
    """Six steps in two epochs of three batches."""
    return tiny_recipe(shards)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
