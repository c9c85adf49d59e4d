"""The data of a few-shot comparison: divided by patient once, drawn once for all methods, read and encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shots import Division, Drawn, divide, draw_shots
from medclip.adaptation.data.table import AdaptTable, LabelledUnit
from medclip.adaptation.data.unit_features import examples_of
from medclip.embeddings.embeddings_reader import open_reader
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.imaging.ecg.recording import signal_of
from medclip.imaging.ecg.sheet.draw_sheet import small_sheet
from medclip.models.encoding.unit_reader import ReadUnit
from medclip.models.packs.card import training_hashes
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.statistics.metrics.classification import HeldOut, numbered

if TYPE_CHECKING:
    from medclip.models.model import Model

FORMAT = 1
"""Raise when the same data and seeds give other predictions; folders of before are then refused."""


@dataclass(frozen=True, eq=False)
class FewShotData:
    """The table's units, the draws of shots, and the units that were read: all for testing, and all that are drawn."""

    text: ClassText
    units: tuple[LabelledUnit, ...]
    division: Division
    """Indices into `units`, whether they could be read or not."""
    rows: tuple[int, ...]
    """Index into `units` of each example."""
    examples: Examples
    sha256: tuple[str, ...]
    """Of each example's bytes."""
    test: tuple[int, ...]
    """Examples to test on. Here and below examples are named by their row."""
    draws: Mapping[tuple[int, int], Drawn]
    """(K, seed) to the shots, the same for every method."""
    notes: tuple[str, ...]
    problems: Mapping[str, int]
    """Files that could not be read, by reason."""
    num_in_training: int | None
    """Test files that the base was trained on, kept since a class would be gone without them; None where the base does
    not list its training files."""
    sampling_hz: float | None = None
    """Of the ECGs, where the base takes them as signals."""

    def unit(self, row: int) -> LabelledUnit:
        """Return the unit of an example."""
        return self.units[self.rows[row]]

    def held_out(self, rows: Sequence[int] | None = None) -> HeldOut:
        """Return the test images (or some examples) for measuring."""
        chosen = list(self.test if rows is None else rows)
        patients = numbered([self.unit(r).patient for r in chosen])
        return HeldOut(self.examples.targets[chosen], patients, len(self.text.names), self.text.steps)

    def num_patients(self, rows: Sequence[int]) -> int:
        """Count whose examples they are."""
        return len({self.unit(r).patient for r in rows})

    def image(self, row: int) -> NDArray[np.uint8] | None:
        """Return the middle view of an example, the middle of a volume or loop, or the sheet of an ECG.

        Returns:
            uint8 [H, W, C]; None of an example whose vectors alone were read.
        """
        views = self.examples.pixels[row]
        if not len(views):
            return None
        middle = views[len(views) // 2]
        if self.sampling_hz is not None:
            return small_sheet(signal_of(middle, self.sampling_hz))
        return middle[len(middle) // 2] if middle.ndim == 4 else middle

    def identity(self, model: Model) -> dict[str, Any]:
        """Return what identifies runs on this data: no path, no identifier, no key of the patients' hashes."""
        numbers: dict[str, int] = {}
        rows = [[u.number, numbers.setdefault(u.patient, len(numbers)), u.target] for u in self.units]
        sides = [sorted(self.units[i].number for i in side) for side in self._sides()]
        return {
            **base_identity(model.path, model.device.type),
            "table": digest_of([rows, [self.sha256[r] for r in self.test]]),
            "classes": digest_of([self.text.kind, self.text.names, self.text.positive(), self.text.negative()]),
            "division": digest_of(sides),
        }

    def _sides(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        return self.division.train, self.division.val, self.division.test


def base_identity(pack: Path, device: str) -> dict[str, Any]:
    """Return what identifies runs before any data is read: the base and the kind of device."""
    base = digest_of((pack / MANIFEST).read_text(encoding="utf-8"))
    return {"format": FORMAT, "base": base, "device": device.partition(":")[0]}


def prepare(
    model: Model,
    table: AdaptTable,
    draws: Sequence[tuple[int, int]],
    *,
    seed: int,
    test_share: float,
    settings: Settings,
    progress: Progress,
    embeddings: Embeddings | None = None,
    originals: Path | None = None,
) -> FewShotData:
    """Divide the units of a table, draw all shots, and read and encode what takes part.

    Args:
        model: The base model.
        table: Table, from `read_adapt_table`.
        draws: K and seed of every draw.
        seed: Seed of the division, where the table has no column `split`.
        test_share: Share of patients to test on, where the table does not say.
        settings: Limits, policy and reading processes.
        progress: Progress bar of the units.
        embeddings: Embeddings that are read in the place of images.
        originals: Folder where the images may lie that were embedded.

    Raises:
        MedclipError: NOTHING_TO_DO when none is left to test on; those of `divide` and `draw_shots`.
    """
    units, text = table.units, table.text
    division = divide(units, seed=seed, test_share=test_share)
    read: dict[int, ReadUnit] = {}
    with open_reader(model, settings, embeddings, originals=originals) as reader:
        while True:
            bad = [i for i, r in read.items() if r.problem is not None]
            drawn = {(k, s): draw_shots(units, division, text, k, s, unusable=bad) for k, s in draws}
            wanted = {*division.test, *(i for d in drawn.values() for i in (*d.train, *d.val))}
            missing = sorted(wanted - read.keys())
            if not missing:
                break
            progress.stage("Reading", len(missing))
            read |= zip(missing, reader.read([units[i] for i in missing], progress.step), strict=True)
    problems = Counter(str(read[i].problem.reason) for i in bad)  # type: ignore[union-attr]
    rows = tuple(i for i in sorted(read) if read[i].problem is None)
    place = {i: row for row, i in enumerate(rows)}
    test = tuple(place[i] for i in division.test if i in place)
    if not test:
        problem_text = "".join(f"; {n} could not be read: {reason}" for reason, n in sorted(problems.items()))
        raise MedclipError(
            Reason.NOTHING_TO_DO, f"no image is left to test on{problem_text}.", hint="Give more patients."
        )
    whose = [units[i] for i in rows]
    hashes = tuple(read[i].sha256 for i in rows)
    _check_copies(hashes, test)
    examples = examples_of(whose, [read[i] for i in rows], range(len(rows)), text)
    seen = training_hashes(model.path, model.card)
    fresh = _fresh(examples, hashes, test, seen or frozenset())
    notes = table.notes
    if len(fresh) < len(test):
        left_out = f"{len(test) - len(fresh)} of {len(test)} test files are not tested on"
        notes = (*notes, f"{left_out}: the base was trained on them or on others of the same patients.")
    placed = {key: _placed(d, place) for key, d in drawn.items()}
    learned = {r for d in placed.values() for r in (*d.train, *d.val)}
    if num_seen := sum(hashes[r] in seen for r in learned) if seen else 0:
        notes = (
            *notes,
            f"{num_seen} of the {len(learned)} files that are learned from were among the base's training files: "
            "what is chosen on them favours methods that stay near the base.",
        )
    return FewShotData(
        text=text,
        units=units,
        division=division,
        rows=rows,
        examples=examples,
        sha256=hashes,
        test=fresh,
        draws=placed,
        notes=notes,
        problems=dict(sorted(problems.items())),
        num_in_training=None if seen is None else sum(hashes[r] in seen for r in fresh),
        sampling_hz=None if (signal := model.preprocess.signal) is None else signal.sampling_hz,
    )


def examples_through(model: Model, data: FewShotData, settings: Settings, progress: Progress) -> Examples:
    """Read the examples of a comparison through another model: its features, no pixels.

    Raises:
        MedclipError: The first reason where it cannot read all of them.
    """
    units = [data.units[i] for i in data.rows]
    progress.stage(f"Reading for {model.name}", len(units))
    with open_reader(model, settings) as reader:
        read = reader.read(units, progress.step)
    if problems := [r.problem for r in read if r.problem is not None]:
        raise MedclipError(
            problems[0].reason,
            f"the baseline {model.name} cannot be shown {len(problems)} of {len(units)} files: {problems[0].sentence}",
        )
    return replace(examples_of(units, read, range(len(units)), data.text), pixels=((),) * len(units))


def _check_copies(hashes: Sequence[str], test: Sequence[int]) -> None:
    """Refuse a test on what is learned from: the same bytes under another name."""
    sides = set(test)
    tested = {hashes[r] for r in test}
    copies = sum(sha in tested for r, sha in enumerate(hashes) if r not in sides)
    if copies:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{copies} of the files to learn from are byte for byte among the test files, under another name.",
            hint="Copies belong to one patient: give their rows the same patient, or keep one of each.",
        )


def _fresh(examples: Examples, hashes: Sequence[str], test: tuple[int, ...], seen: frozenset[str]) -> tuple[int, ...]:
    """Leave out test patients that the base was trained on, unless a class (or what is without it) would be gone."""
    seen_patients = {examples.patients[r] for r in test if hashes[r] in seen}
    fresh = tuple(r for r in test if examples.patients[r] not in seen_patients)

    def sides(rows: Sequence[int]) -> set[tuple[int, float]]:
        targets = examples.targets[list(rows)]
        if targets.ndim == 1:
            return {(int(c), 1.0) for c in targets}
        return {(c, v) for c in range(targets.shape[1]) for v in (0.0, 1.0) if (targets[:, c] == v).any()}

    return fresh if fresh and sides(fresh) == sides(test) else test


def _placed(drawn: Drawn, place: Mapping[int, int]) -> Drawn:
    return Drawn(tuple(place[i] for i in drawn.train), tuple(place[i] for i in drawn.val), drawn.notes)


def table_name(table: Any) -> str:
    """Name a table without its folder."""
    return Path(table).name if isinstance(table, str | Path) else "a data frame"
