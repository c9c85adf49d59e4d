"""Step `clip_score`: pairs whose image and words a pack finds alike stay, by a threshold or as a share.

After DataComp's filter (Gadre et al., "DataComp: In search of the next generation of multimodal datasets", NeurIPS
2023). Its rule for a share f of N scores takes as threshold the one at place int(N f) from 0, so that n + 1 stay, and
more where scores are equal (`reference: true`). The rule here keeps ceil(N f), ties by key, of each modality by itself:
scores of radiographs and of histology cannot be compared, and a modality that a pack knows little of would go whole.

Which pack scored stands in the facts, with the hash of its files. A pack that was trained on these very reports marks
its own work, and what it never learned has low scores however well words and image agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs.words import no_words
from medclip.pairs.selection.pack_vectors import encode_pile, load_pack, other_notes, pack_facts, unread_notes
from medclip.pairs.selection.steps import FilterSettings, Verdict
from medclip.sample import modality_of_name
from medclip.settings import DEFAULT_MODEL
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from medclip.models.model import Model
    from medclip.pairs.pile import Pile
    from medclip.pairs.selection.steps import Context
    from medclip.progress import Progress

_Threshold = float | Mapping[str, float] | None
UNKNOWN = "unknown"
"""How pairs without a modality are called in thresholds and facts."""
_TEXTS_AT_ONCE = 4096
_BINS = 40


class ClipScoreSettings(FilterSettings):
    """What `clip_score` is asked."""

    model: str = DEFAULT_MODEL
    """Pack that scores; a folder or a built-in pack. It must know words."""
    fraction: float | None = None
    """Share of pairs that stay, above 0 and up to 1."""
    threshold: float | dict[str, float] | None = None
    """Least score that stays: one, or one for each modality."""
    by: Literal["modality", "all"] | None = None
    """What a share is of; each modality by itself where None, and all pairs in the mode of the reference."""
    reference: bool = False
    """Whether the share follows DataComp's rule to the bit."""

    def packs(self) -> tuple[str, ...]:
        """Return the pack."""
        return (self.model,)

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.fraction is None) == (self.threshold is None):
            raise ValueError("clip_score takes a fraction or a threshold, one of them.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError("a fraction is above 0 and at most 1.")
        return self


def clip_score(
    pile: Pile, rows_M: NDArray[np.int64], settings: ClipScoreSettings, context: Context, number: int
) -> Verdict:
    """Keep pairs by the cosine of image and words.

    Of a pair with several captions it is the mean: one of them is drawn whenever training reads the pair.

    Args:
        pile: Pairs.
        rows_M: Rows that earlier steps kept.
        settings: Pack and rule.
        context: Progress and folder.
        number: Place of the step, which changes nothing.

    Returns:
        Scores as values. A pair whose image cannot be read, or without a caption, has none and goes; one that the pack
        does not take, an ECG record beside images, has none and stays.

    Raises:
        MedclipError: WRONG_USE for a pack without words; RECIPE_INVALID for a threshold of a modality that no pair has;
            what loading a pack raises.
    """
    settings = settings.model_copy(update={"threshold": _of_modalities(settings.threshold, pile)})
    model = load_pack(settings.model, context)
    if not model.has_text:
        raise no_words(model.name, ", which clip_score compares with images")
    texts = pile.words(rows_M, report_as_line=True)
    vectors = encode_pile(model, pile, rows_M, context.progress)
    scores_M = score_pairs(model, vectors.vectors_MD, texts, context.progress)
    groups = [modality or UNKNOWN for modality in pile.cells("modality", rows_M)]
    kept_M, facts = _chosen(scores_M, groups, pile.cells("key", rows_M), settings)
    kept_M |= vectors.is_other_M
    num_without = sum(
        not text.strip() for text, is_other in zip(texts, vectors.is_other_M, strict=True) if not is_other
    )
    facts |= {"pack": pack_facts(model), "unread": dict(vectors.unread), "without_caption": num_without}
    gone = sorted(set(groups) - {groups[row] for row in np.flatnonzero(kept_M).tolist()})
    notes = [
        *(f"Caution: no pair of the modality {name} stays." for name in gone),
        *other_notes(model, vectors),
        *unread_notes(vectors.unread),
        *_without_threshold(settings.threshold, groups),
        *([f"{count(num_without, 'pair')} dropped, as there is no caption."] if num_without else []),
    ]
    return Verdict(kept_M, scores_M, facts=facts, notes=tuple(notes))


def score_pairs(
    model: Model, vectors_MD: NDArray[np.float32], texts: Sequence[str], progress: Progress
) -> NDArray[np.float64]:
    """Score M pairs: mean cosine of a vector and its captions, a line each; NaN without any, or without a vector."""
    scores_M = np.full(len(texts), np.nan)
    progress.stage(f"Scoring captions with {model.name}", len(texts))
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts[start : start + _TEXTS_AT_ONCE]
        lines = [
            (row, line)
            for row, text in enumerate(part, start)
            for line in text.split("\n")
            if line.strip() and np.isfinite(vectors_MD[row, 0])
        ]
        if lines:
            rows_K = np.array([row for row, _ in lines])
            # A model remembers each text: of millions it would remember gigabytes.
            texts_KD = model.without_sentences().encode_text([line for _, line in lines])
            cosine_K = np.einsum("kd,kd->k", vectors_MD[rows_K].astype(np.float64), texts_KD.astype(np.float64))
            sums_M, nums_M = (np.bincount(rows_K - start, w, len(part)) for w in (cosine_K, np.ones(len(lines))))
            scored = nums_M > 0
            scores_M[start : start + len(part)][scored] = sums_M[scored] / nums_M[scored]
        progress.step(len(part))
    return scores_M


def reference_threshold(scores_N: NDArray[np.floating], fraction: float) -> float:
    """Return DataComp's threshold for a share of scores: n + 1 of them are at least it, n = int(N f).

    Example:
        >>> reference_threshold(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), 0.4)
        0.7
    """
    place = int(len(scores_N) * fraction)
    return float(np.sort(scores_N)[::-1][place]) if place < len(scores_N) else -math.inf


def best_share(scores_N: NDArray[np.floating], keys: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """Choose exactly ceil(N f) of the best scores, ties by key.

    Example:
        >>> best_share(np.array([0.5, 0.9, 0.5, 0.1]), ["b", "a", "a", "c"], 0.5).tolist()
        [False, True, True, False]
    """
    num = math.ceil(len(scores_N) * fraction - 1e-9)  # 100 x 0.29 is 28.999...
    order = sorted(range(len(scores_N)), key=lambda row: (-scores_N[row], keys[row]))
    chosen_N = np.zeros(len(scores_N), bool)
    chosen_N[order[:num]] = True
    return chosen_N


def _chosen(
    scores_M: NDArray[np.float64], groups: Sequence[str], keys: Sequence[str], settings: ClipScoreSettings
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Choose by the rule; also what each modality has of scores and of kept pairs."""
    groups_M, kept_M = np.array(groups, object), np.zeros(len(scores_M), bool)
    names, scored_M = sorted(set(groups)), np.isfinite(scores_M)
    together = (settings.by or ("all" if settings.reference else "modality")) == "all"
    thresholds: dict[str, float] = {}
    for name in [None] if together else names:
        rows = np.flatnonzero(scored_M if name is None else scored_M & (groups_M == name))
        for modality in names if name is None else [name]:
            thresholds[modality] = -math.inf
        if settings.fraction is None or not len(rows):
            continue
        if settings.reference:
            kept_M[rows] = scores_M[rows] >= reference_threshold(scores_M[rows], settings.fraction)
        else:
            kept_M[rows] = best_share(scores_M[rows], [keys[row] for row in rows.tolist()], settings.fraction)
        for modality in names if name is None else [name]:
            thresholds[modality] = float(scores_M[rows][kept_M[rows]].min())
    if settings.threshold is not None:
        thresholds = {name: _threshold_of(settings.threshold, name) for name in names}
        kept_M = scored_M & (scores_M >= np.array([thresholds[group] for group in groups]))
    edges = np.histogram_bin_edges(scores_M[scored_M], _BINS) if scored_M.any() else np.linspace(-1, 1, _BINS + 1)
    facts = {
        "edges": edges.tolist(),
        "modalities": {name: _facts_of(scores_M, kept_M, groups_M == name, edges, thresholds[name]) for name in names},
    }
    return kept_M, facts


def _of_modalities(threshold: _Threshold, pile: Pile) -> _Threshold:
    """Return thresholds by the names that a pile has for its modalities; refuse one that no pair has."""
    if not isinstance(threshold, Mapping):
        return threshold
    names = {cell or UNKNOWN for cell in pile.cells("modality")}
    by_name = {str(modality_of_name(name) or name): least for name, least in threshold.items()}
    for name in by_name:
        if name not in names:
            hint = did_you_mean(name, sorted(names), "Modalities are")
            message = f"clip_score: no pair has the modality {name!r}, of which there is a threshold."
            raise MedclipError(Reason.RECIPE_INVALID, message, where=pile.place, hint=hint)
    return by_name


def _without_threshold(threshold: _Threshold, groups: Sequence[str]) -> tuple[str, ...]:
    """Write of which modalities all scored pairs stay, as thresholds name others; nothing where there is none."""
    if not isinstance(threshold, Mapping):
        return ()
    names = sorted({*groups} - {*threshold})
    return (f"No threshold for {list_of(names)}: all pairs that have a score stay.",) if names else ()


def _threshold_of(threshold: float | Mapping[str, float], modality: str) -> float:
    """Return the least score of a modality; all stay of one that is not named."""
    return threshold if isinstance(threshold, float | int) else threshold.get(modality, -math.inf)


def _facts_of(
    scores_M: NDArray[np.float64],
    kept_M: NDArray[np.bool_],
    of_M: NDArray[np.bool_],
    edges: NDArray[np.float64],
    threshold: float,
) -> dict[str, Any]:
    scores = scores_M[of_M]
    return {
        "pairs": int(of_M.sum()),
        "kept": int(kept_M[of_M].sum()),
        "threshold": threshold if math.isfinite(threshold) else None,
        "counts": np.histogram(scores[np.isfinite(scores)], edges)[0].tolist(),
    }
