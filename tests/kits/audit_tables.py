"""Tables of scores and truths with gaps that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def audit_table(patients: int = 120, *, seed: int = 0, gap: float = 0.0, rows: int = 2, splits: bool = False) -> Any:
    """Make a table of scores, truths and groups; one row an image.

    Args:
        patients: How many; named P0, P1, ...
        seed: Of everything.
        gap: How much less the score tells of women (0: as much as of men; 1: nothing).
        rows: Images of each patient.
        splits: Whether every third patient is of the split `val`, the others of `test`.
    """
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rows)
    sex = np.where(rng.random(patients) < 0.5, "F", "M")[who]
    age = rng.integers(20, 80, patients)[who]
    flu = (rng.random(patients) < 0.4).astype(int)[who]
    told = np.where(sex == "F", 1.8 * (1 - gap), 1.8)
    noise = rng.normal(size=patients)[who] + rng.normal(size=len(who))
    frame = pd.DataFrame(
        {
            "image": [f"img{i}" for i in range(len(who))],
            "patient": [f"P{p}" for p in who],
            "sex": sex,
            "age": age,
            "tube": rng.integers(0, 2, len(who)),
            "flu": flu,
            "flu_score": 1 / (1 + np.exp(-(told * (2 * flu - 1) + noise))),
        }
    )
    if splits:
        frame["split"] = np.where(who % 3 == 0, "val", "test")
    return frame
