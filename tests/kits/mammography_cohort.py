"""The simulated mammography cohort of pipelines/mv_mlm, small: exams of four views with a known truth."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType

from tests.kits.stages import load_stage

FOLDER = Path(__file__).parents[2] / "pipelines" / "mv_mlm"


@cache
def module_of(name: str) -> ModuleType:
    """Load a script of the pipeline."""
    return load_stage(FOLDER, name)


def write_cohort(folder: Path, num: int = 10, *, seed: int = 0, height: int = 80, dicom: bool = False) -> Path:
    """Write exams of `num` women and return the table, one row an image; `folder/truth.csv` has what was planted.

    About 2 ms an image of 80 x 48 px. `num=10` has six women for training, two for validation, three for testing.
    """
    return module_of("simulate").write_cohort(folder, num, seed=seed, height=height, dicom=dicom)
