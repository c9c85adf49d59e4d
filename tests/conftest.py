"""Fixtures every test may use, and the settings that keep tests apart from the user's machine."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers as hypothesis_providers

from tests.kits.loaded_readers import LoadedReaders

if TYPE_CHECKING:
    from tests.kits.loaded_python import Programs

# Before anything imports torch or matplotlib: subprocesses started by tests inherit these too.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("MEDCLIP_DEBUG", None)

REPOSITORY = Path(__file__).resolve().parents[1]

# The same examples in every run (a red CI can be repeated) and no time limit per example (CI machines are slow).
hypothesis_settings.register_profile(
    "medclip", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("medclip")
# Hypothesis reads constants out of the source of every local module that is loaded, and draws some of them: a minute of
# CPU with two thousand modules, and other examples wherever others are loaded.
hypothesis_providers._get_local_constants = lambda: hypothesis_providers._local_constants


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is dear, and skip what runs at night where it is not night: fixtures are then as small as sizes say."""
    from tests.kits.costs import mark_dear
    from tests.kits.size import is_nightly

    mark_dear(items)
    for item in items:
        if item.get_closest_marker("nightly") and not is_nightly():
            item.add_marker(pytest.mark.skip(reason="runs at night: make test-nightly, or MEDCLIP_NIGHTLY=1"))


def pytest_collection_finish() -> None:
    """Take modules and tests out of sight of the garbage collector, which would look at all of them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def _own_home() -> Iterator[Path]:
    """Keep the identity key of tests out of the user's home."""
    with tempfile.TemporaryDirectory(prefix="medclip-home-") as folder:
        before = os.environ.get("MEDCLIP_HOME")
        os.environ["MEDCLIP_HOME"] = folder
        yield Path(folder)
        if before is None:
            os.environ.pop("MEDCLIP_HOME", None)
        else:
            os.environ["MEDCLIP_HOME"] = before


@pytest.fixture(scope="session", autouse=True)
def _loaded_readers() -> Iterator[LoadedReaders | None]:
    """Start reading processes as forks of one that has imported what they need, and at night as programs."""
    from medclip.files.readers import serving
    from tests.kits.size import is_nightly

    if is_nightly() or sys.platform != "linux":
        yield None
        return
    with LoadedReaders() as readers, pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "start_python", readers.start)
        yield readers


@pytest.fixture
def real_readers(_loaded_readers: LoadedReaders | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start reading processes as users do: for tests of their memory."""
    from medclip.files.readers import serving

    if _loaded_readers is not None:
        monkeypatch.setattr(serving, "start_python", _loaded_readers.start_program)


@pytest.fixture(scope="session", autouse=True)
def _loaded_torch() -> Iterator[None]:
    """Convert pickled checkpoints in forks of a process that has torch, and at night in programs."""
    from medclip.models.towers import weight_files
    from tests.kits.loaded_python import LoadedPython
    from tests.kits.size import is_nightly

    if is_nightly() or sys.platform != "linux":
        yield
        return
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        started: list[LoadedPython] = []

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            if not started:
                started.append(stack.enter_context(LoadedPython("torch", "safetensors.torch")))
            return subprocess.run([started[0].python, *command[1:]], check=False, **options)

        patch.setattr(weight_files, "subprocess", SimpleNamespace(run=run))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors: $MEDCLIP_GOLDEN_DIR, or specs/golden of the shared folder; skips without one."""
    shared = Path(os.environ.get("MEDCLIP_SHARED") or REPOSITORY.parent / "shared")
    folder = Path(os.environ.get("MEDCLIP_GOLDEN_DIR") or shared / "specs" / "golden")
    if not folder.is_dir():
        pytest.skip("no folder of golden vectors beside the repository; set MEDCLIP_GOLDEN_DIR to where it is")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder beside the repository (or $MEDCLIP_SHARED); skips where there is none."""
    folder = Path(os.environ.get("MEDCLIP_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip("no shared data folder beside the repository; set MEDCLIP_SHARED to where it is")
    return folder


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Start `medclip` and `python` as forks of a process that has imported them, and at night as programs anew."""
    from tests.kits.loaded_python import LoadedPython, RealPython
    from tests.kits.size import is_nightly

    if is_nightly() or not hasattr(os, "pidfd_open"):  # Linux has it
        yield RealPython()
        return
    with LoadedPython() as loaded:
        yield loaded


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of an S3 store on loopback; its tests carry @pytest.mark.allow_hosts(["127.0.0.1"])."""
    from tests.kits.stores import KEYS, s3_server

    before = {name: os.environ.get(name) for name in (*KEYS, "AWS_ENDPOINT_URL")}
    with s3_server() as url:
        os.environ.update({**KEYS, "AWS_ENDPOINT_URL": url})
        yield url
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
