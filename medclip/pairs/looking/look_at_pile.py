"""One look at a pile of image-text pairs: everything that is counted and measured, its tables and its examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.table import Table, is_marked
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.imaging.geometry import fit
from medclip.models.packs.words import no_words
from medclip.pairs.looking.alignment import Alignment, measure_alignment
from medclip.pairs.looking.boilerplate import find_boilerplate
from medclip.pairs.looking.copies import find_copies
from medclip.pairs.looking.findings import findings
from medclip.pairs.looking.mentions import count_concepts, count_words
from medclip.pairs.looking.pile_look import CountRow, Example, PileLook
from medclip.pairs.looking.texts import TextFacts, look_at_texts, texts_of
from medclip.pairs.pile import Pile
from medclip.pairs.selection.metadata_files import read_metadata
from medclip.pairs.selection.pack_vectors import encode_pile, need_input, pack_facts
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.shards.folder import HELD_OUT, SYNTHETIC
from medclip.shards.stored_data import encode

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.imaging.ecg.recording import Recording
    from medclip.models.model import Model

PAGE, FACTS = "look.html", "look.json"
_THINGS: Mapping[frozenset[bool], Literal["image", "record", "image or record"]] = {
    frozenset({False}): "image",
    frozenset({True}): "record",
    frozenset({False, True}): "image or record",
}
"""What texts stand beside, by which of them are records."""
COLUMNS = ("modality", "split", "source", "license", "language")
THUMBNAIL_PX = 112
MOST_LETTERS = 300
"""Letters of an example's text."""
_LENGTHS = (1, 6, 11, 21, 41, 81, 161, 321, 641)
"""Words from which on a text belongs to the next group."""


def look_at_pile(
    pile: Pile,
    out: Path,
    *,
    others: Sequence[Pile],
    model: Model | None,
    metadata: str,
    num_examples: int,
    thumbnails: bool,
    seed: int,
    settings: Settings,
    render: Callable[[PileLook], str],
    progress: Progress,
) -> PileLook:
    """Look at a pile, and write the page, the figures and the tables.

    Args:
        pile: N pairs.
        out: Folder to make, or to replace; `claim_look` refuses others.
        others: Evaluation sets.
        model: Pack that compares images and words; None where none is asked.
        metadata: "built-in", or a file of concepts.
        num_examples: Number of examples of each end and modality; 0 shows no single pair.
        thumbnails: Whether examples have their image.
        seed: Seed of the shuffle, of the examples and of trees.
        settings: Limits, and home of the identity key.
        render: Function that makes the page.
        progress: Progress bar.

    Raises:
        MedclipError: NOTHING_TO_DO for a pile without a pair; WRONG_USE for a pack without words, or one that does not
            take what the pile holds; what `read_metadata` raises.
    """
    if not len(pile):
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no pair to look at.", where=pile.place)
    if model is not None and not model.has_text:
        raise no_words(model.name, ", which are compared with images here")
    if model is not None:
        need_input(model, pile)
    concepts = read_metadata(metadata)
    rng = np.random.default_rng(seed)
    patients_N, is_known_N = _patients(pile)
    texts = texts_of(pile)
    facts = look_at_texts(pile, texts, None if model is None else model.tokenizer, progress)
    boilerplate = find_boilerplate(texts, facts, patients_N, is_known_N, progress)
    named = count_concepts(texts, concepts, patients_N, progress)
    vectors = None if model is None else encode_pile(model, pile, np.arange(len(pile)), progress)
    vectors_ND = None if vectors is None else vectors.vectors_MD
    copies = find_copies(pile, others, facts, model, vectors_ND, settings, progress, seed)
    modalities, alignment = pile.cells("modality"), None
    if model is not None and vectors is not None:
        pack = {name: str(value) for name, value in pack_facts(model).items()}
        words = pile.words(report_as_line=True)
        alignment = measure_alignment(model, pack, vectors, words, modalities, patients_N, facts.hash_N, progress, rng)
    look = PileLook(
        len(pile),
        len(np.unique(patients_N[is_known_N])),
        int((~is_known_N).sum()),
        _num_in_splits(pile, patients_N, is_known_N),
        *_num_synthetic(pile),
        tuple(_counts(pile, facts, patients_N, is_known_N)),
        facts,
        None if model is None else model.tokenizer.context_length,
        boilerplate,
        named,
        count_words(texts, progress),
        copies,
        alignment,
        pile.digest,
        _THINGS[frozenset(pile.is_record().tolist())],
        keys=tuple(pile.cells("key")),
        out=out,
    )
    examples = _examples(pile, texts, modalities, patients_N, alignment, num_examples, thumbnails, rng, progress)
    look = replace(look, findings=findings(look), examples=tuple(examples))
    with new_folder(out) as draft:
        for name, table in look.tables().items():
            write_file(draft / f"{name}.parquet", parquet_bytes(table))
            write_file(draft / f"{name}.csv", csv_bytes(table))
        write_file(draft / PAGE, render(look))
        stored = {name: value for name, value in look.to_dict().items() if name != "out"}
        write_file(draft / FACTS, json.dumps(stored, indent=1) + "\n")
    return look


def claim_look(out: Path, inputs: Mapping[str, Path], *, overwrite: bool) -> None:
    """Refuse a folder that a look cannot go to.

    Raises:
        MedclipError: OUTPUT_IN_USE, WRONG_USE.
    """
    holds = claim_folder(out, "look at pairs", marks=(FACTS,), inputs=inputs, in_one_step=True)
    if holds and not overwrite:
        raise in_use(out, "this folder holds a look at pairs already", "Name another one, or replace it: --overwrite.")


def _patients(pile: Pile) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the patient of each row as a number, of its own where none is known, and whether it is known."""
    cells = pile.cells("patient")
    codes: dict[str | int, int] = {}
    patients_N = np.array([codes.setdefault(cell or row, len(codes)) for row, cell in enumerate(cells)], np.int64)
    return patients_N, np.array([bool(cell) for cell in cells], bool)


def _num_in_splits(pile: Pile, patients_N: NDArray[np.int64], is_known_N: NDArray[np.bool_]) -> int:
    splits = np.unique(np.array(pile.cells("split"), object).astype(str), return_inverse=True)[1]
    both = np.unique(np.stack([patients_N[is_known_N], splits[is_known_N]]), axis=1)
    return int((np.unique(both[0], return_counts=True)[1] > 1).sum())


def _counts(
    pile: Pile,
    facts: TextFacts,
    patients_N: NDArray[np.int64],
    is_known_N: NDArray[np.bool_],
) -> list[CountRow]:
    """Count the pairs and the known patients of each value; words in their order, others the most frequent first."""
    rows = []
    for column in COLUMNS:
        cells = facts.languages if column == "language" else pile.cells(column)
        rows += sorted(_count_rows(column, cells, patients_N, is_known_N), key=lambda row: (-row.pairs, row.value))
    groups = np.digitize(facts.num_words_N, _LENGTHS).tolist()
    by_length = _count_rows("words", groups, patients_N, is_known_N)
    rows += [replace(row, value=_length_name(int(row.value))) for row in sorted(by_length, key=lambda r: int(r.value))]
    return rows


def _count_rows(
    column: str, cells: Sequence[str | int], patients_N: NDArray[np.int64], is_known_N: NDArray[np.bool_]
) -> list[CountRow]:
    codes: dict[str | int, int] = {}
    code_N = np.fromiter((codes.setdefault(cell, len(codes)) for cell in cells), np.int64, len(cells))
    pairs_V = np.bincount(code_N, minlength=len(codes))
    most = int(patients_N.max()) + 1
    once = np.unique(code_N[is_known_N] * most + patients_N[is_known_N]) // most
    patients_V = np.bincount(once, minlength=len(codes))
    return [
        CountRow(column, str(value), int(pairs_V[v]), int(patients_V[v]), float(pairs_V[v] / len(cells)))
        for value, v in codes.items()
    ]


def _num_synthetic(pile: Pile) -> tuple[int, int]:
    """Count pairs that a column marks as synthetic, and those of them in splits of evaluation."""
    column = Table(pile.table, "the pile").find(SYNTHETIC)
    if column is None:
        return 0, 0
    splits = [split for split, mark in zip(pile.cells("split"), pile.cells(column), strict=True) if _is_synthetic(mark)]
    return len(splits), sum(split.lower() in HELD_OUT for split in splits)


def _is_synthetic(mark: object) -> bool:
    return mark is not None and is_marked(str(mark))


def _length_name(group: int) -> str:
    if group == 0:
        return "0"
    first = _LENGTHS[group - 1]
    return f"{first} and more" if group == len(_LENGTHS) else f"{first} to {_LENGTHS[group] - 1}"


def _examples(
    pile: Pile,
    texts: pa.ChunkedArray,
    modalities: Sequence[str],
    patients_N: NDArray[np.int64],
    alignment: Alignment | None,
    num: int,
    thumbnails: bool,
    rng: np.random.Generator,
    progress: Progress,
) -> list[Example]:
    """Choose the worst and the best aligned pairs of each modality, or some at random; one of each patient."""
    names = np.array(modalities, object)
    chosen: list[tuple[str, int]] = []
    for modality in sorted(set(modalities)) if num else ():
        rows = np.flatnonzero(names == modality)
        if alignment is None or not np.isfinite(alignment.cosine_N[rows]).any():
            chosen += [("drawn", row) for row in _of_patients(rng.permutation(rows), patients_N, num)]
            continue
        rows = rows[np.isfinite(alignment.cosine_N[rows])]
        rows = rows[np.argsort(alignment.cosine_N[rows], kind="stable")]
        half = min(num, (len(np.unique(patients_N[rows])) + 1) // 2)
        worst = _of_patients(rows, patients_N, half)
        best = [row for row in _of_patients(rows[::-1], patients_N, half) if row not in worst]
        chosen += [("worst", row) for row in worst] + [("best", row) for row in best]
    burned = _burned_in(pile)
    progress.stage("Examples", len(chosen))
    wanted = [row for _, row in chosen if thumbnails and row not in burned]
    images = dict(zip(wanted, map(_small, pile.looks(wanted)), strict=True)) if wanted else {}
    examples = []
    for end, row in chosen:
        cosine = None if end == "drawn" or alignment is None else float(alignment.cosine_N[row])
        text = _beginning(texts[row].as_py())
        examples.append(Example(modalities[row], end, row, cosine, text, images.get(row), row in burned))
        progress.step()
    return examples


def _of_patients(rows: NDArray[np.int64], patients_N: NDArray[np.int64], num: int) -> list[int]:
    """Return the first rows, one of each patient."""
    first: dict[int, int] = {}
    for row in rows.tolist():
        first.setdefault(int(patients_N[row]), row)
        if len(first) == num:
            break
    return list(first.values())


def _burned_in(pile: Pile) -> frozenset[int]:
    """Return the rows whose header says that letters are burned into the image."""
    column = Table(pile.table, "the pile").find("burned_in", "BurnedInAnnotation")
    cells = [] if column is None else pile.cells(column)
    return frozenset(row for row, cell in enumerate(cells) if str(cell).strip().casefold() in ("true", "yes"))


def _small(image: NDArray[np.uint8] | Recording | MedclipError) -> bytes | None:
    """Draw an image small, and a record as reports of runs do; nothing of what cannot be read."""
    from medclip.imaging.ecg.sheet.draw_sheet import small_sheet_png
    from medclip.imaging.ecg.twelve_leads import canonical

    if isinstance(image, MedclipError):
        return None
    return (
        encode(fit(image, THUMBNAIL_PX), "jpeg", 70)
        if isinstance(image, np.ndarray)
        else small_sheet_png(canonical(image))
    )


def _beginning(text: str) -> str:
    line = " / ".join(" ".join(part.split()) for part in text.split("\n"))
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 1]}…"
