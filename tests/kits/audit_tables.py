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


def harmed_tables(patients: int = 800, *, seed: int = 14) -> tuple[Any, dict[str, Any]]:
    """Make a table of labels with six attributes, and scores of two models for five labels, of which one harms.

    The model `first` finds pneumonia in about 45 % of patients of race C who have it, and in about 88 % of all others.

    Args:
        patients: How many; some have two images.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, 3, patients))
    race = rng.choice(["A", "B", "C"], patients, p=[0.6, 0.2, 0.2])[who]
    labels: dict[str, Any] = {
        "file": [f"img{i}.png" for i in range(len(who))],
        "patient": [f"P{p}" for p in who],
        "split": np.where(who % 5 == 0, "val", "test"),
        "sex": rng.choice(["F", "M"], patients)[who],
        "age": rng.integers(18, 92, patients)[who],
        "race": race,
        "site": rng.choice(["North", "South"], patients, p=[0.6, 0.4])[who],
        "view": rng.choice(["AP", "PA"], len(who)),
        "insurance": rng.choice(["public", "private"], patients)[who],
    }
    first, second = {"file": labels["file"]}, {"file": labels["file"]}
    for name in ("Pneumonia", "Effusion", "Cardiomegaly", "Edema", "No Finding"):
        ill = (rng.random(patients) < 0.3)[who]
        noise = rng.normal(size=len(who))
        effect = 2.6 * (ill - 0.5) + noise - (1.5 * ((race == "C") & ill) if name == "Pneumonia" else 0)
        other = 2.0 * (ill - 0.5) + 0.7 * noise + 0.7 * rng.normal(size=len(who))
        labels[name] = ill.astype(int)
        first[name], second[name] = 1 / (1 + np.exp(-effect)), 1 / (1 + np.exp(-other))
    return pd.DataFrame(labels), {"first": pd.DataFrame(first), "second": pd.DataFrame(second)}


def planted_tables(patients: int = 3000, *, seed: int = 0) -> tuple[Any, Any]:
    """Make labels and scores of one label with three harms: a shift, labels that are noise, and a view that is none.

    Scores of race C are lower by 1.1 logits; at the site West 18 % of labels are wrong; scores of the scanner Mobile
    are higher by 0.9 logits, and 92 % of AP films are of it, but 6 % of PA films, so that the views seem to differ.

    Args:
        patients: How many, of one image each; every fourth is of the split `val`.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    columns = {
        "file": [f"i{i}.png" for i in range(patients)],
        "patient": [f"P{i}" for i in range(patients)],
        "split": np.where(np.arange(patients) % 4 == 0, "val", "test"),
        "race": rng.choice(["A", "B", "C"], patients, p=[0.55, 0.25, 0.2]),
        "site": rng.choice(["North", "South", "West"], patients, p=[0.4, 0.35, 0.25]),
        "sex": rng.choice(["F", "M"], patients),
        "view": rng.choice(["AP", "PA"], patients, p=[0.4, 0.6]),
    }
    share = np.where(columns["view"] == "AP", 0.92, 0.06)
    columns["scanner"] = np.where(rng.random(patients) < share, "Mobile", "Fixed")
    ill = rng.random(patients) < 0.25
    wrong = (columns["site"] == "West") & (rng.random(patients) < 0.18)
    shift = 0.9 * (columns["scanner"] == "Mobile") - 1.1 * (columns["race"] == "C")
    logit = -1.1 + 2.2 * (ill - 0.25) + rng.normal(size=patients) + shift
    labels = pd.DataFrame({**columns, "flu": (ill != wrong).astype(int)})
    return labels, pd.DataFrame({"file": columns["file"], "flu": 1 / (1 + np.exp(-logit))})
