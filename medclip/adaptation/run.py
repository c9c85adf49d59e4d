"""An adaptation: shots are drawn and read, a method learns from them, and both models answer for the test patients."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import text_head
from medclip.adaptation.data.shots import Division, Drawn, draw_readable, draw_shots
from medclip.adaptation.data.table import AdaptTable, LabelledUnit
from medclip.adaptation.data.token_heads import answering
from medclip.adaptation.data.unit_features import examples_of, targets_of, unit_logits
from medclip.adaptation.methods import Fitted, Method
from medclip.adaptation.pack.adapted_model import (
    MOST_LOOKED_AT,
    Adapted,
    Draw,
    Shot,
    below_chance,
    label_of,
    learned_nothing,
    run_notes,
    seen_by_base,
)
from medclip.embeddings.embeddings_reader import EmbeddingsReader, open_reader
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason
from medclip.models.devices import torch_threads
from medclip.models.encoding.parallel_encoding import ImageEncoder
from medclip.models.encoding.unit_reader import ReadUnit, UnitReader, encode_units
from medclip.models.prototypes.class_vectors import probabilities
from medclip.progress import Progress
from medclip.result import Result
from medclip.sample import Modality
from medclip.settings import Settings
from medclip.wording import by_reason, count, estimate, list_of

if TYPE_CHECKING:
    from medclip.adaptation.towers.svd_report import Meaning
    from medclip.models.model import Model

_MOST_HELD = 2000
"""Test units whose pixels are held in memory (0.15 MB a view) for a method that changes the towers; more are read again
when it has learned."""


@dataclass(frozen=True, eq=False)
class ScoredTest:
    """What base and adapted model say of the test patients. Nothing of it was learned from."""

    numbers: tuple[int, ...]
    """Row of the table of each unit, from 1."""
    sha256: tuple[str, ...]
    patients: tuple[str, ...]
    """Keyed hashes."""
    targets: NDArray
    """int64 [N]; float32 [N, C] with NaN for what is not known (multi-label)."""
    logits_NC: NDArray[np.float32]
    zero_shot_NC: NDArray[np.float32] | None
    """Logits of the base's prompts; None for an image-only base."""
    kind: str
    features_ND: NDArray[np.floating] | None = None
    """The base's vector of each unit, the mean over its views; None for an image-only base."""
    modality: Modality | None = None
    """None where they are of several."""

    @property
    def probabilities_NC(self) -> NDArray[np.float32]:
        """What `medclip score` gives with the adapted pack."""
        return probabilities(self.logits_NC, self.kind)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False, repr=False)
class AdaptRun(Result):
    """A finished adaptation."""

    adapted: Adapted
    division: Division
    """Sides of the table's labelled rows, as indices into `units`."""
    units: tuple[LabelledUnit, ...]
    drawn: Drawn
    test: ScoredTest
    notes: tuple[str, ...]
    """What should be known: rows left out, classes with few patients, shots that were replaced."""
    problems: Mapping[str, int]
    """Files that could not be read, by reason."""
    seconds: Mapping[str, float]
    """reading, learning, scoring."""
    measured: Any = None
    """Figures of `medclip.evaluation.adapted_figures.measure`."""
    folder: Path | None = None
    """The pack."""
    changes: tuple[Meaning, ...] = ()
    """Which parts of the image tower changed, and along which sentences that moved images; of svd, where asked for."""

    @property
    def text(self) -> ClassText:
        """The classes."""
        return self.adapted.text

    def _facts(self) -> dict[str, object]:
        return {
            "task": f"{self.text.task.title}: {list_of(self.text.names, most=5)}",
            "method": f"{self.adapted.title}, {count(self.adapted.fitted.num_trainable, 'number')} learned",
            "shots": ", ".join(f"{name} {count}" for name, count in self.adapted.num_by_class.items()),
            "files": f"{len(self.units)}, {len(self.test.numbers)} of them tested on",
            "not read": ", ".join(f"{reason} {count}" for reason, count in self.problems.items()) or 0,
            "figures": self._first_figure(),
            "pack": self.folder or "not written",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        measured = {} if self.measured is None else self.measured.to_json()
        by_class = measured.get("auroc_by_class", {})
        figures = measured.get("figures", {}) | {f"auroc of {name}": compared for name, compared in by_class.items()}
        return [
            {"metric": metric} | {f"{of} {end}": value for of, ends in compared.items() for end, value in ends.items()}
            for metric, compared in figures.items()
        ][:most]

    def _first_figure(self) -> str:
        """Return the figure that matters most, and how many rows more the table has."""
        rows = self._rows()
        if not rows:
            return "not measured"
        ends = ("value", "low", "high")
        adapted, before = (
            estimate(*(rows[0].get(f"{of} {end}", math.nan) for end in ends)) for of in ("adapted", "zero_shot")
        )
        before = f", zero-shot {before}" if "zero_shot value" in rows[0] else ""
        name = rows[0]["metric"].replace("_", " ")
        more = f"; {count(len(rows) - 1, 'more row')}: to_pandas()" if len(rows) > 1 else ""
        return f"{name} {adapted}{before}{more}"


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What the steps of an adaptation share; nothing of it is checked any more."""

    base: Model
    table: AdaptTable
    division: Division
    method: Method
    draw: Draw
    settings: Settings
    progress: Progress
    embeddings: Embeddings | None = None
    """What is read in the place of images."""
    originals: Path | None = None
    """Where the images may lie that were embedded."""

    def run(self, options: Mapping[str, Any], num_threads: int | None) -> AdaptRun:
        """Draw and read the shots, learn, and score the test patients.

        Args:
            options: Options of the method.
            num_threads: Threads of torch while it learns; its own number where None.

        Raises:
            MedclipError: PATIENT_OVERLAP for a test on what was learned; where no shot can be read its reason; those of
                the method.
        """
        units, text = self.table.units, self.table.text
        started = time.perf_counter()
        with open_reader(self.base, self.settings, self.embeddings, originals=self.originals) as reader:
            drawn, read, replaced = self._read_shots(reader)
            keep = self.method.needs_pixels and len(self.division.test) <= _MOST_HELD
            tested = self._read(reader, "Reading the test patients", self.division.test, keep_pixels=keep)
            _refuse_overlap(drawn, read, tested)
            read_at = time.perf_counter()
            train = examples_of(units, read, drawn.train, text)
            val = examples_of(units, read, drawn.val, text) if drawn.val else None
            self.progress.stage(f"Learning: {self.method.title}", 1)
            with torch_threads(num_threads):
                fitted = self.method.fit(self.base, text, train, val, seed=self.draw.init_seed, **options)
            self.progress.step()
            learned_at = time.perf_counter()
            good = [i for i in self.division.test if tested[i].problem is None]
            features = [tested[i].features for i in good]
            merged = fitted.merged(self.base)
            encoder = answering(merged, [fitted.head])
            ours = features
            if encoder is not self.base and keep:
                ours = encode_units(encoder, [tested[i].pixels for i in good])
            elif encoder is not self.base:
                again = self._read(reader, "Scoring the test patients", good, keep_pixels=False, others=[encoder])
                ours = [again[i].others[0] for i in good]
            learned = self._learned(fitted, merged, train)
        prompts = text_head(text.vectors(self.base), self.base.logit_scale) if self.base.has_text else None
        of_prompts: list[str] = []
        if prompts is not None:
            labelled = train.joined(val)
            of_prompts = below_chance(text, unit_logits(prompts, self.base, labelled.features), labelled.targets)
        ways = tuple(sorted({r.way for r in read.values() if r.problem is None}))
        modalities = {units[i].modality for i in good}
        adapted = Adapted(self.base, self.method.name, text, fitted, self._shots(drawn, read), self.draw, ways)
        test = ScoredTest(
            numbers=tuple(units[i].number for i in good),
            sha256=tuple(tested[i].sha256 for i in good),
            patients=tuple(units[i].patient for i in good),
            targets=targets_of([units[i].target for i in good], text),
            logits_NC=_logits(text, lambda: unit_logits(fitted.head, merged, ours), len(good)),
            zero_shot_NC=None
            if prompts is None
            else _logits(text, lambda: unit_logits(prompts, self.base, features), len(good)),
            kind=text.kind,
            features_ND=None if prompts is None else np.array([views_VD.mean(axis=0) for views_VD in features]),
            modality=modalities.pop() if len(modalities) == 1 else None,
        )
        problems = Counter(str(r.problem.reason) for r in [*read.values(), *tested.values()] if r.problem is not None)
        seconds = {
            "reading": read_at - started,
            "learning": learned_at - read_at,
            "scoring": time.perf_counter() - learned_at,
        }
        notes = (
            *self.table.notes,
            *drawn.notes,
            *replaced,
            *seen_by_base(self.base, adapted.shots),
            *of_prompts,
            *fitted.notes,
            *learned,
            *run_notes(text, self.base, adapted.ways, test.targets, fitted.settings),
        )
        return AdaptRun(adapted, self.division, units, drawn, test, notes, dict(sorted(problems.items())), seconds)

    def _read_shots(self, reader: UnitReader | EmbeddingsReader) -> tuple[Drawn, dict[int, ReadUnit], list[str]]:
        """Draw and read until every shot of the draw could be read.

        Raises:
            MedclipError: With the commonest reason, where not one of the first shots can be read, or where so many
                cannot that nothing is left to tell apart.
        """
        read: dict[int, ReadUnit] = {}

        def read_some(missing: list[int]) -> list[int]:
            some = self._read(reader, "Reading the shots", missing)
            read.update(some)
            return [i for i, r in some.items() if r.problem is not None]

        drawn, bad = draw_readable(self._drawn, read_some, lambda what: _unreadable(read, what))
        if not bad:
            return drawn, read, []
        note = (
            f"{count(len(bad), 'shot')} could not be read ({_reasons(read)}); the next of the same "
            "class, where there was one, was taken instead."
        )
        return drawn, read, [note]

    def _drawn(self, unusable: Sequence[int]) -> Drawn:
        return draw_shots(
            self.table.units, self.division, self.table.text, self.draw.shots, self.draw.seed, unusable=unusable
        )

    def _read(
        self,
        reader: UnitReader | EmbeddingsReader,
        stage: str,
        indices: Sequence[int],
        *,
        keep_pixels: bool = True,
        others: Sequence[ImageEncoder] = (),
    ) -> dict[int, ReadUnit]:
        if indices:
            self.progress.stage(stage, len(indices))
        chosen = [self.table.units[i] for i in indices]
        return dict(
            zip(indices, reader.read(chosen, self.progress.step, keep_pixels=keep_pixels, others=others), strict=True)
        )

    def _shots(self, drawn: Drawn, read: Mapping[int, ReadUnit]) -> tuple[Shot, ...]:
        units, text = self.table.units, self.table.text
        roles = [(i, "train") for i in drawn.train] + [(i, "val") for i in drawn.val]
        return tuple(Shot(read[i].sha256, units[i].patient, role, label_of(text, units[i].target)) for i, role in roles)

    def _learned(self, fitted: Fitted, merged: Model, train: Examples) -> list[str]:
        """Ask the adapted model about its own shots."""
        if not fitted.num_trainable:
            return []
        some = train.select(range(min(len(train.targets), MOST_LOOKED_AT)))
        encoder = answering(merged, [fitted.head])
        features = some.features if encoder is self.base else encode_units(encoder, some.pixels)
        return learned_nothing(
            self.table.text, unit_logits(fitted.head, merged, features), some.targets, fitted.settings
        )


def _logits(text: ClassText, make: Callable[[], NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    return make() if count else np.zeros((0, len(text.names)), np.float32)


def _reasons(read: Mapping[int, ReadUnit]) -> str:
    return by_reason(Counter(str(r.problem.reason) for r in read.values() if r.problem is not None))


def _unreadable(read: Mapping[int, ReadUnit], what: str) -> MedclipError:
    problems = [r.problem for r in read.values() if r.problem is not None]
    commonest, _ = Counter(problem.reason for problem in problems).most_common(1)[0]
    first = next(problem for problem in problems if problem.reason is commonest)
    return MedclipError(
        commonest,
        f"{what} ({_reasons(read)}).",
        hint=f"The first one: {first.message} Are --images and --modality right?",
    )


def _refuse_overlap(drawn: Drawn, read: Mapping[int, ReadUnit], tested: Mapping[int, ReadUnit]) -> None:
    """Refuse a test on what was learned: the same bytes under another name.

    Raises:
        MedclipError: PATIENT_OVERLAP with the number of such files.
    """
    learned = {read[i].sha256 for i in (*drawn.train, *drawn.val)}
    both = sum(r.sha256 in learned for r in tested.values() if r.problem is None)
    if both:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{both} test file{'s are' if both > 1 else ' is'} byte for byte among the shots, under another name.",
            hint="Copies belong to one patient: give their rows the same patient, or keep one of each.",
        )
