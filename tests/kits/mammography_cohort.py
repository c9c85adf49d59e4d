"""The simulated mammography cohort of pipelines/mv_mlm, small: exams of four views with a known truth."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "pipelines" / "mv_mlm"


@cache
def module_of(name: str) -> ModuleType:
    """Load a script of the pipeline."""
    spec = importlib.util.spec_from_file_location(f"mv_mlm_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_cohort(folder: Path, num: int = 10, *, seed: int = 0, height: int = 80, dicom: bool = False) -> Path:
    """Write exams of `num` women and return the table, one row an image; `folder/truth.csv` has what was planted.

    About 2 ms an image of 80 x 48 px. `num=10` has six women for training, two for validation, three for testing.
    """
    return module_of("simulate").write_cohort(folder, num, seed=seed, height=height, dicom=dicom)
