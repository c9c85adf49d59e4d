"""What an audit measures and how surely: everything that is not about reading the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.auditing.declared import Declared
from medclip.auditing.disclosure import Policy as SmallCells
from medclip.errors import MedclipError, Reason
from medclip.statistics.estimate import NUM_RESAMPLES


@dataclass(frozen=True)
class Thresholds:
    """Where thresholds come from: a number, a file, or other patients. None of them: `DEFAULT` for probabilities."""

    value: float | None = None
    file: Path | None = None
    """What an earlier audit wrote (`thresholds.json`), or `medclip.auditing.thresholds.choose.write_thresholds`."""
    choose_on: Any = None
    """Scores of other patients, as the audited ones are given (by model, for several models); None: the same table."""
    choose_labels: Any = None
    choose_where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    policy: str | None = None

    DEFAULT = 0.5

    @property
    def chosen(self) -> bool:
        """Whether thresholds are chosen on other patients."""
        return self.choose_on is not None or bool(self.choose_where)

    def __post_init__(self) -> None:
        """Refuse a threshold that is none."""
        if self.value is not None and not math.isfinite(self.value):
            raise MedclipError(Reason.WRONG_USE, "the threshold is not a finite number.")


@dataclass(frozen=True)
class Shortcuts:
    """What else than the disease a model may go by, and what to ask of it."""

    devices: Sequence[str] = ()
    """Columns that say whether a device (chest drain, pacemaker) is in the image."""
    masked: Any = None
    site: str | None = None
    reweight: Sequence[str] = ()


@dataclass(frozen=True)
class ImageChecks:
    """What is needed to look at images and embeddings beside the scores; nothing is looked at by default."""

    model: str | Path | None = None
    images: Path | None = None
    """Folder that the label table's files are in: images are read, encoded and hashed."""
    modality: str | None = None
    embeddings: Path | None = None
    """Vectors made elsewhere, Parquet or .npz."""
    training: Sequence[Any] = ()
    key_file: Path | None = None
    study: str | None = None
    sites: Sequence[str] = ()
    """Attributes (site, scanner) between which embeddings may drift."""
    date: str | None = None
    attacker: bool = False
    show_images: bool = False
    """Whether the page shows the worst errors of each group."""

    def __post_init__(self) -> None:
        """Refuse a key file that does not exist."""
        if self.key_file is not None and not self.key_file.is_file():
            raise MedclipError(Reason.MISSING_FILE, "there is no such key file.", where=self.key_file)


@dataclass(frozen=True)
class Stress:
    """What the model is shown besides the images as they are (`ImageChecks.model` and `.images`)."""

    corruptions: Sequence[str] = ()
    """Names of `imaging.corruptions.OPERATIONS`; none: the first five of the modality."""
    most: int = 500
    """Images of a group, chosen by a hash of their names."""
    temperature: float = 1.0
    """Of the context that is inferred from an image for its prompts; above 1 it is trusted less."""


@dataclass(frozen=True)
class MeasureOptions:
    """Numbers of an audit."""

    dataset: str = ""
    num_resamples: int = NUM_RESAMPLES
    permutations: int | None = None
    """Shuffles of group labels for each gap; None: `shuffles_for` the number of primary hypotheses."""
    seed: int = 0
    horizon: float | None = None
    """Of times to events, in the unit of their column: also audit "event by then", weighted for censoring."""
    small_cells: SmallCells = field(default_factory=SmallCells)
    threads: int | None = None
    """Labels at a time; None: as many as there are cores. Results do not depend on it."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    image_checks: ImageChecks = field(default_factory=ImageChecks)
    reference: Any = None
    tolerance: float = 0.8
    """Of a group's rate over that of the reference group: from this to 1 over it."""
    declared: Declared = field(default_factory=Declared)
    """What was required, and asked first, before the data was seen (`medclip.auditing.declared.declared`)."""
    task: str | Path | None = None
    stress: Stress | None = None
    """Also score images that are not as they were; None: not done."""

    def __post_init__(self) -> None:
        """Refuse a horizon that is none."""
        if self.horizon is not None and not (math.isfinite(self.horizon) and self.horizon > 0):
            raise MedclipError(Reason.WRONG_USE, f"the horizon is {self.horizon:g}; it is a time after the start.")


def shuffles_for(num_tests: int, num_patients: int) -> int:
    """Return the shuffles that a family of tests needs: with n of them the smallest p is 1/(n + 1), and Holm's method
    multiplies it by the number of tests. Of very many patients fewer are taken, for a shuffle of 200,000 takes 20 ms.

    Example:
        >>> shuffles_for(10, 500), shuffles_for(300, 500), shuffles_for(300, 200_000)
        (1000, 12000, 2000)
    """
    most = max(_FEWEST_SHUFFLES, min(_MOST_SHUFFLES, _MOST_SHUFFLED // max(num_patients, 1)))
    return min(max(_FEWEST_SHUFFLES, _PER_TEST * num_tests), most)


_FEWEST_SHUFFLES, _PER_TEST, _MOST_SHUFFLES, _MOST_SHUFFLED = 1000, 40, 20_000, 400_000_000
LEAST_PER_TEST = 20
"""With fewer shuffles for each test not even the smallest p-value is at most 0.05 after Holm's method."""
