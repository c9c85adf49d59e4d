"""Adapt a pack to a map: masks of a few images are learned from over the frozen tower, those of others are tested."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.shots import Division, Drawn, draw_readable, draw_shots
from medclip.adaptation.data.table import AdaptTable
from medclip.adaptation.maps.decoders import RATE, STEPS, position_margin, train_head
from medclip.adaptation.maps.feature_maps import FeatureMaps, check_grid, encode_maps
from medclip.adaptation.maps.map_head import map_head
from medclip.adaptation.maps.masked_images import Masked, MaskedImage
from medclip.adaptation.methods import Fitted, Method
from medclip.adaptation.pack.adapted_model import Adapted, Draw, Shot, seen_by_base
from medclip.errors import MedclipError, Reason
from medclip.files.temporary_folder import TemporaryFolder
from medclip.models.devices import torch_threads
from medclip.progress import Progress
from medclip.result import Result
from medclip.settings import Settings
from medclip.wording import by_reason, count

if TYPE_CHECKING:
    from medclip.models.model import Model

_PACK = "pack"
_AT_ONCE = 512
"""Test images whose maps lie on disk at once: half a gigabyte."""


@dataclass(frozen=True, eq=False)
class MapExamples:
    """What a map is learned from."""

    maps: FeatureMaps
    chosen: NDArray[np.int64]
    """Numbers of the images that are learned from."""

    @property
    def features(self) -> NDArray[np.float32]:
        """Feature maps of all images, float32 [N, D, h, w]."""
        return self.maps.maps[_PACK]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Images as the tower takes them, uint8 [N, S, S, 3]: of a method that trains it."""
        assert self.maps.pixels is not None
        return self.maps.pixels


def fit_map_probe(
    base: Model,
    text: ClassText,
    train: MapExamples,
    val: MapExamples | None,
    *,
    seed: int,
    steps: int = STEPS,
    levels: bool = True,
) -> Fitted:
    """Learn BatchNorm and a 1 x 1 convolution over the frozen tower's feature maps.

    Args:
        base: The loaded base model; not changed.
        text: The structure.
        train: Feature maps and masks.
        val: Not used: settings are fixed.
        seed: Seed of the initial values and of the order of images.
        steps: Number of steps of up to 16 images.
        levels: Whether maps of several depths are learned on (hypercolumns), or the last alone.

    Raises:
        MedclipError: NON_FINITE where the head says no numbers.
    """
    if steps < 1:
        raise MedclipError(Reason.WRONG_USE, f"a map is learned in at least one step, not in {steps}.")
    learned = train_head(train.features, train.maps.labels, train.chosen, seed=seed, steps=steps)
    rows, columns = train.features.shape[2:]
    head: Any = map_head(learned, (rows, columns), levels=levels)
    if not all(np.isfinite(array).all() for array in (head.weight_DC, head.bias_C)):
        raise MedclipError(Reason.NON_FINITE, "the head that was learned is not finite.", hint="Learn fewer steps.")
    size = sum(parameter.numel() for parameter in learned.parameters())
    return Fitted(head, size, {"steps": steps, "rate": RATE, "levels": levels})


@dataclass(frozen=True, eq=False)
class TestedMap:
    """An image that nothing was learned from, and what the head says of it on the tower's grid: above 0 where it is."""

    image: MaskedImage
    number: int
    """Row of the table, from 1."""
    patient: str
    margin_hw: NDArray[np.float32]
    position_LL: NDArray[np.float32]
    """The same of the masks' mean, which never sees an image."""


@dataclass(frozen=True, eq=False, repr=False)
class MapRun(Result):
    """A finished adaptation to a map."""

    adapted: Adapted
    tested: tuple[TestedMap, ...]
    num_images: int
    notes: tuple[str, ...]
    problems: Mapping[str, int]
    """Files that could not be read, by reason."""
    measured: Any = None
    """Figures of `medclip.evaluation.dense.adapted_map.measure_map`."""
    folder: Path | None = None
    """The pack."""

    def _facts(self) -> dict[str, object]:
        return {
            "task": self.adapted.text.task.title,
            "method": f"{self.adapted.title}, {count(self.adapted.fitted.num_trainable, 'number')} learned",
            "shots": len(self.adapted.shots),
            "files": f"{self.num_images}, {len(self.tested)} of them tested on",
            "not read": ", ".join(f"{reason} {number}" for reason, number in self.problems.items()) or 0,
            "figures": "not measured" if self.measured is None else self.measured.line,
            "pack": self.folder or "not written",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return ([] if self.measured is None else self.measured.rows())[:most]


@dataclass(frozen=True, eq=False)
class MapAdaptation:
    """What the steps of an adaptation to a map share; nothing of it is checked any more."""

    base: Model
    table: AdaptTable
    division: Division
    method: Method
    draw: Draw
    settings: Settings
    progress: Progress

    def run(self, options: Mapping[str, Any], num_threads: int | None = None) -> MapRun:
        """Draw and encode the shots, learn, and ask about the test patients.

        Args:
            options: Options of the method.
            num_threads: Threads of torch while it learns; its own number where None.

        Raises:
            MedclipError: NOT_SUPPORTED_YET for a tower without a grid; WRONG_USE for images of several modalities;
                TABLE_INVALID where nothing is marked; what reading the commonest unreadable shot raises, where none can
                be read; PATIENT_OVERLAP for a test image that is learned from under another name.
        """
        check_grid(self.base)
        levels = bool(options.get("levels", True))
        units = self.table.units
        modalities = sorted({str(unit.modality) for unit in units})
        if len(modalities) > 1:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the table has images of {len(modalities)} modalities, and a map is learned of one.",
                hint=f"Keep the rows of one of: {', '.join(modalities)}.",
            )
        (modality,) = modalities
        with TemporaryFolder("maps") as folder:
            drawn, shots, bad = self._shots(Path(folder), modality, levels)
            chosen = np.arange(len(drawn.train))
            if not any((shots.labels[n] == 1).any() for n in chosen):
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    "nothing is marked in any of the masks that are learned from.",
                    hint="A mask is white where something is; draw others with --seed, or more with --shots.",
                )
            self.progress.stage("Learning the map", 1)
            train = MapExamples(shots, chosen)
            fit: Any = self.method.fit  # of maps from `MapExamples`
            with torch_threads(num_threads):
                fitted = fit(self.base, self.table.text, train, None, seed=self.draw.init_seed, **options)
            model = fitted.merged(self.base)
            position_LL = position_margin(np.array(shots.labels))
            self.progress.step(1)
            tested = list(self._test(Path(folder), modality, model, fitted, position_LL))
        listed = tuple(
            Shot(image.sha256, units[i].patient, "train", self.table.text.names[0])
            for i, image in zip(drawn.train, shots.images, strict=True)
        )
        good = tuple(one for one in tested if one.image.problem is None)
        learned = {shot.sha256 for shot in listed}
        if both := sum(one.image.sha256 in learned for one in good):
            raise MedclipError(
                Reason.PATIENT_OVERLAP,
                f"{count(both, 'test file')} {'are' if both > 1 else 'is'} byte for byte among the shots.",
                hint="Copies belong to one patient: give their rows the same patient, or keep one of each.",
            )
        adapted = Adapted(self.base, self.method.name, self.table.text, fitted, listed, self.draw, (modality,))
        problems = Counter([*bad, *(str(one.image.problem.reason) for one in tested if one.image.problem is not None)])
        notes = [*self.table.notes, *drawn.notes, *seen_by_base(self.base, listed)]
        if bad:
            notes.append(
                f"{count(len(bad), 'shot')} could not be read ({by_reason(Counter(bad))}); the next patient, where "
                "there was one, was taken instead."
            )
        if not good:
            notes.append("Nobody is tested on: the pack has no figures.")
        return MapRun(adapted, good, len(units), tuple(notes), dict(sorted(problems.items())))

    def _shots(self, folder: Path, modality: str, levels: bool) -> tuple[Drawn, FeatureMaps, list[str]]:
        """Draw and encode until every shot of the draw could be read; also why some could not."""
        parts: list[FeatureMaps] = []
        reasons: dict[int, str] = {}

        def read(missing: list[int]) -> list[int]:
            parts.append(self._encode("Reading the shots", missing, modality, folder / f"{len(parts)}", levels))
            images = zip(missing, parts[-1].images, strict=True)
            bad = {i: str(image.problem.reason) for i, image in images if image.problem is not None}
            reasons.update(bad)
            return list(bad)

        def draw(unusable: Sequence[int]) -> Drawn:
            table, asked = self.table, self.draw
            return draw_shots(table.units, self.division, table.text, asked.shots, asked.seed, unusable=unusable)

        def refusal(what: str) -> MedclipError:
            why = by_reason(Counter(reasons.values()))
            return MedclipError(Reason.NOTHING_TO_DO, f"{what} ({why}).", hint="Are --images and --modality right?")

        drawn, bad = draw_readable(draw, read, refusal)
        if bad:  # those of the draw stand in several parts
            parts = [self._encode("Reading the shots", drawn.train, modality, folder / "drawn", levels)]
        return drawn, parts[-1], list(reasons.values())

    def _test(
        self, folder: Path, modality: str, model: Model, fitted: Fitted, position_LL: NDArray[np.float32]
    ) -> Iterator[TestedMap]:
        """Ask the head about all test images, some at a time: a map has a megabyte."""
        head: Any = fitted.head
        for start in range(0, len(self.division.test), _AT_ONCE):
            some, place = self.division.test[start : start + _AT_ONCE], folder / "test"
            maps = self._encode("Reading the test images", some, modality, place, head.levels, model)
            features = maps.maps.get(_PACK)
            for n, i in enumerate(some):
                unit, image = self.table.units[i], maps.images[n]
                margin = np.zeros((1, 1), np.float32)
                if features is not None and image.problem is None:
                    tokens_LD = features[n].reshape(features.shape[1], -1).T
                    margin = (tokens_LD @ head.weight_DC + head.bias_C)[:, 0].reshape(features.shape[2:])
                yield TestedMap(image, unit.number, unit.patient, margin, position_LL)
            del features, maps
            shutil.rmtree(place)

    def _encode(
        self,
        stage: str,
        indices: Sequence[int],
        modality: str,
        folder: Path,
        levels: bool,
        model: Model | None = None,
    ) -> FeatureMaps:
        """Encode by a model that was learned; by the base, for what learns, where None."""
        units = self.table.units
        rows = []
        for i in indices:
            mask = units[i].mask
            assert mask is not None
            rows.append(Masked(units[i].number, units[i].path, mask, units[i].patient, self.table.text.names[0]))
        folder.mkdir()
        self.progress.stage(stage, len(rows))
        step = self.progress.step
        models, keep_pixels = {_PACK: model or self.base}, model is None and self.method.trains_towers
        return encode_maps(models, rows, modality, folder, self.settings, step, levels=levels, keep_pixels=keep_pixels)
