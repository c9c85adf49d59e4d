"""Losses of a batch spread over ranks equal those of one process: 2 and 4 spawned gloo ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kits.rank_cases import SIZE, cases, run_cases, run_towers

pytestmark = pytest.mark.slow  # starts ranks

Found = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.nightly)])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Found:
    """What each rank found. Starting processes takes longest, so one run computes all cases."""
    folder, count = tmp_path_factory.mktemp("ranks"), request.param
    shared = Path(os.environ.get("MEDCLIP_SHARED") or repository.parent / "shared")
    golden = Path(os.environ.get("MEDCLIP_GOLDEN_DIR") or shared / "specs" / "golden") / "core_clip_siglip_losses.npz"
    command = [sys.executable, "-W", "ignore", "-m", "tests.kits.rank_cases", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [*command, str(rank), str(count), str(golden) if golden.is_file() else ""],
            cwd=repository,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said[-3000:]
    found = []
    for rank in range(count):
        with np.load(folder / f"{rank}.npz", allow_pickle=False) as stored:
            found.append(dict(stored))
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return run_cases(slice(0, SIZE), None)


@pytest.mark.parametrize("name", list(cases()))
def test_the_mean_over_ranks_is_the_loss_of_one_process_and_so_are_the_gradients(
    ranks: Found, alone: dict[str, np.ndarray], name: str
) -> None:
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(np.mean([r[f"{name}/loss"] for r in ranks]), alone[f"{name}/loss"], **close)
    for i in range(4):  # features: what DDP averages over ranks is made from their sum
        ours = np.concatenate([r[f"{name}/{i}"] for r in ranks]) / len(ranks)
        np.testing.assert_allclose(ours, alone[f"{name}/{i}"], **close)
    for i in (4, 5):  # scale and bias are parameters
        np.testing.assert_allclose(np.mean([r[f"{name}/{i}"] for r in ranks]), alone[f"{name}/{i}"], **close)


@pytest.mark.parametrize("cached", [False, True])
def test_under_ddp_parameters_get_the_gradients_of_the_whole_batch_also_in_chunks(ranks: Found, cached: bool) -> None:
    for name, expected in run_towers(slice(0, SIZE), None, cached=False).items():
        ours = [r[f"towers {cached}/{name}"] for r in ranks]
        if name != "loss":
            assert all(np.array_equal(ours[0], x) for x in ours)
        np.testing.assert_allclose(np.mean(ours, axis=0), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.golden
def test_the_part_of_each_rank_equals_the_golden_one(ranks: Found, golden: Path) -> None:
    stored = np.load(golden / "core_clip_siglip_losses.npz", allow_pickle=False)
    ours = [r["golden"] for r in ranks]
    np.testing.assert_allclose(np.mean(ours), stored["sharded/full"], atol=1e-5, rtol=1e-4)
    if len(ours) == len(stored["sharded/local"]):
        np.testing.assert_allclose(ours, stored["sharded/local"], atol=1e-5, rtol=1e-4)
