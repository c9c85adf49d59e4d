"""A run takes the steps that open_clip's own training loop takes; tests/training/test_ranks.py has it in two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.open_clip_steps import CLOSE, TRAIN, steps_plan, train_both


def test_steps_with_clipping_and_a_scale_at_its_limit_are_those_of_open_clips_loop(
    shards: Path, tmp_path: Path
) -> None:
    both = train_both(steps_plan(shards), [], tmp_path)
    assert both is not None
    assert min(both.norms) < TRAIN["clip_norm"] < max(both.norms)
    assert both.scales[0] == pytest.approx(100, abs=1e-3)
    assert max(both.apart.values()) < CLOSE, both.apart
