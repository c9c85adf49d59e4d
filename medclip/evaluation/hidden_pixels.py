"""Measure on a split that it was not trained on how well a masked model fills in hidden pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medclip.evaluation.shard_split import blocks_of, choose_rows
from medclip.models.packs.card import SplitFigures
from medclip.progress import Progress, Silent
from medclip.statistics.estimate import DECIMALS, NUM_RESAMPLES, Estimate, Figure
from medclip.statistics.resampling.intervals import symmetric_interval
from medclip.statistics.resampling.standard_errors import effective_patients, mended
from medclip.statistics.resampling.weights import draw_weights
from medclip.training.batches.samples import Drawing, Room, Samples
from medclip.training.reconstructions import naive_errors

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.shards.reading.samples import ShardReader
    from medclip.training.steps.masked_pixels import MaskedPart

HIDDEN_PIXELS, MASKED_ERROR, MASKED_GAIN = "hidden_pixels", "masked_error", "masked_gain"
_STREAM = 19
"""Chance of what is hidden: no other draw of a run depends on it."""


def measure_hidden(
    model: Model,
    part: MaskedPart,
    reader: ShardReader,
    drawing: Drawing,
    *,
    seen: frozenset[str] = frozenset(),
    limit: int | None = None,
    workers: int = 2,
    num_resamples: int = NUM_RESAMPLES,
    progress: Progress | None = None,
) -> SplitFigures:
    """Measure a pack and the part that was trained with it to guess hidden pixels.

    The figure is the mean squared error of the hidden pixels in the unit of the loss: the mean over all hidden patches,
    with an interval that resamples patients. In the place of chance stands the error of a guess without a model. Both
    errors are of the same images, so that two intervals would not say whether they differ: the gain beside them is the
    share by which the model's error is the smaller one, and its interval resamples both together.

    Args:
        model: The loaded pack.
        part: Part that guesses, on the model's device, in evaluation mode.
        reader: The split.
        drawing: Rules by which samples are made; its seed draws what is hidden, for each sample by itself.
        seen: sha256 of the training files and hashes of the training patients, as in `choose_rows`.
        limit: Samples measured at most, spread evenly over the split.
        workers: Threads that read and decode.
        num_resamples: Resamples of patients.
        progress: Progress bar of the images.
    """
    progress_bar, held = progress or Silent(), choose_rows(reader, seen, limit)
    progress_bar.stage(f"Measuring on the split {reader.split}", len(held.rows))
    samples = Samples(reader, drawing, Room(0))
    errors, naive, places = [], [], []
    problems: Counter[str] = Counter()
    std = torch.tensor(model.preprocess.std, device=model.device)
    with ThreadPoolExecutor(max(1, workers)) as pool, torch.inference_mode():
        for start, block in blocks_of(pool, samples, held.rows, model.batch_size):
            problems.update(str(sample.bad) for sample in block if sample.image is None)
            readable = [(start + n, sample.image) for n, sample in enumerate(block) if sample.image is not None]
            if readable:
                pixels = np.stack([image for _, image in readable])
                images = model.normalise(pixels)
                rows = [int(held.rows[place]) for place, _ in readable]
                mask_BL = _masks(part, pixels, rows, drawing.seed).to(model.device)
                errors.append(part(model.clip, images, mask_BL).double().cpu().numpy())
                naive += naive_errors(images, mask_BL, part.patch, std=std, normalised=part.normalise)
                places += [place for place, _ in readable]
            progress_bar.step(len(block))
    whose, notes = held.whose(places)
    size = {"num_images": len(whose), "num_patients": len(set(whose))}
    figures = {}
    error_N2 = np.concatenate(errors) if errors else np.zeros((0, 2))
    if error_N2[:, 1].any():
        figure = Figure.of(mean_over_patients(error_N2[:, 0], error_N2[:, 1], whose, num_resamples))
        values = {"value": figure.value, "low": figure.low, "high": figure.high}
        chance = {"chance": round(float(np.average(naive, weights=error_N2[:, 1])), DECIMALS)}
        figures = {HIDDEN_PIXELS: {MASKED_ERROR: values | chance | size}}
        naive_N = np.array(naive) * error_N2[:, 1]
        if naive_N.any():
            gain = Figure.of(mean_over_patients(naive_N - error_N2[:, 0], naive_N, whose, num_resamples))
            values = {"value": gain.value, "low": gain.low, "high": gain.high, "chance": 0.0}
            figures[HIDDEN_PIXELS][MASKED_GAIN] = values | size
        notes.append(
            "Of the error less is better. In the place of chance stands the error of a guess without a model: the mean "
            "of what is seen, or nothing but each patch's mean where patches are normalised. The gain is the share of "
            "that error that the model takes away."
        )
    return SplitFigures(
        split=reader.split,
        shards=hashlib.sha256("".join(reader.shard_hashes).encode()).hexdigest(),
        num_images=len(whose),
        num_patients=len(set(whose)) if held.names_patients else None,
        num_in_training=held.num_seen,
        problems=dict(sorted(problems.items())),
        figures=figures,
        notes=tuple(notes),
    )


def _masks(part: MaskedPart, pixels: NDArray[np.uint8], rows: Sequence[int], seed: int) -> torch.Tensor:
    """Draw what is hidden of each image, whichever others are measured."""
    foreground_BL = part.foreground(torch.from_numpy(pixels))
    masks = []
    for n, row in enumerate(rows):
        chance = int(np.random.default_rng((seed, row, _STREAM)).integers(2**62))
        foreground = None if foreground_BL is None else foreground_BL[n : n + 1]
        masks.append(part.draw(1, torch.Generator().manual_seed(chance), foreground)[0])
    return torch.cat(masks)


def mean_over_patients(
    totals_N: NDArray[np.float64], sizes_N: NDArray[np.float64], whose: Sequence[Hashable], num_resamples: int
) -> Estimate:
    """Return a mean over parts of images, and value ± t · SE over resamples of patients; no interval with one patient.

    Args:
        totals_N: Sum over the parts of each image.
        sizes_N: Number of parts of each image, or what the totals are a share of; 0 or more.
        whose: Patient of each image.
        num_resamples: Number of resamples.
    """
    number = {patient: i for i, patient in enumerate(dict.fromkeys(whose))}
    patient_N = np.array([number[patient] for patient in whose])
    totals_P, sizes_P = np.bincount(patient_N, totals_N), np.bincount(patient_N, sizes_N)
    mean = np.array([totals_N.sum() / sizes_N.sum()])
    if len(number) < 2:
        return Estimate(float(mean[0]))
    weights_PB = draw_weights(len(number), num_resamples, seed=0).astype(np.float64)
    drawn_1B = (totals_P @ weights_PB / (sizes_P @ weights_PB))[None]
    errors = mended(mean, drawn_1B, sizes_N.sum(keepdims=True), np.array([effective_patients(patient_N)]), share=False)
    low, high = symmetric_interval(mean, errors)
    return Estimate(float(mean[0]), float(low[0]), float(high[0]))
