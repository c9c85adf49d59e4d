"""One look at a pile of image-text pairs: everything that is counted and measured, its tables and its examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.table import Table
from medclip.files.tables.write import csv_bytes, parquet_bytes
from medclip.imaging.geometry import fit
from medclip.models.packs.words import no_words
from medclip.pairs.looking.alignment import Alignment, measure_alignment
from medclip.pairs.looking.boilerplate import Boilerplate, find_boilerplate
from medclip.pairs.looking.copies import Against, Copies, find_copies
from medclip.pairs.looking.findings import Finding, findings
from medclip.pairs.looking.mentions import ConceptCounts, Tail, count_concepts, count_words
from medclip.pairs.looking.texts import TextFacts, look_at_texts, texts_of
from medclip.pairs.pile import Pile
from medclip.pairs.selection.image_links import WAYS
from medclip.pairs.selection.metadata_files import read_metadata
from medclip.pairs.selection.pack_vectors import encode_pile, pack_facts
from medclip.progress import Progress
from medclip.result import Result, named_counts
from medclip.settings import Settings
from medclip.shards.stored_data import encode
from medclip.wording import number, percent_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.models.model import Model

PAGE, FACTS = "look.html", "look.json"
COLUMNS = ("modality", "split", "source", "license", "language")
THUMBNAIL_PX = 112
MOST_LETTERS = 300
"""Letters of an example's text."""
_LENGTHS = (1, 6, 11, 21, 41, 81, 161, 321, 641)
"""Words from which on a text belongs to the next group."""


@dataclass(frozen=True)
class CountRow:
    """Pairs and patients of one value of a column; `patients` are those that are known."""

    column: str
    value: str
    pairs: int
    patients: int
    share: float


@dataclass(frozen=True)
class Example:
    """One pair as the page shows it."""

    modality: str
    end: str
    """"worst" or "best" by cosine; "drawn" where no pack was asked."""
    row: int
    cosine: float | None
    text: str
    """The beginning of its text."""
    image: bytes | None = None
    """JPEG; None where it is left out or cannot be read."""
    is_withheld: bool = False
    """Whether letters are burned into the image."""


@dataclass(frozen=True, repr=False, eq=False)
class PileLook(Result):
    """What a pile looks like."""

    num_pairs: int
    num_patients: int
    num_without_patient: int
    num_patients_in_splits: int
    """Patients that stand in more than one split."""
    counts: tuple[CountRow, ...]
    texts: TextFacts
    context: int | None
    """Tokens that the pack reads; None where none was asked."""
    boilerplate: Boilerplate
    concepts: ConceptCounts
    words: Tail
    copies: Copies
    alignment: Alignment | None
    pile_digest: str = ""
    findings: tuple[Finding, ...] = ()
    examples: tuple[Example, ...] = ()
    keys: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def against(self) -> tuple[Against, ...]:
        """What is shared with each evaluation set."""
        return self.copies.against

    @property
    def num_cut(self) -> int | None:
        """Pairs with a text that is longer than the pack reads; None where none was asked."""
        if self.texts.num_tokens_N is None or self.context is None:
            return None
        return int((self.texts.num_tokens_N > self.context).sum())

    def _facts(self) -> dict[str, object]:
        bad = [one.text for one in self.findings if one.severity == "bad"]
        facts: dict[str, object] = {} if not bad else {"caution": bad[0]}
        facts["pairs"] = f"{number(self.num_pairs)} of {number(self.num_patients)} patients"
        facts["modalities"] = named_counts({r.value: r.pairs for r in self.counts if r.column == "modality"})
        facts["copies"] = f"{number(self.copies.num_copies)} ({percent_of(self.copies.num_copies, self.num_pairs)})"
        for one in self.against:
            linked = int((one.has_image_N | one.has_patient_N).sum())
            facts[f"linked to {one.name}"] = number(linked)
        return facts | ({} if self.out is None else {"folder": self.out})

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.counts][:most]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data for JSON; what stands out leads. It holds no text of a single patient."""
        letters, words = self.texts.num_letters_N, self.texts.num_words_N
        lengths: dict[str, Any] = {"letters": _quantiles(letters), "words": _quantiles(words)}
        if self.texts.num_tokens_N is not None:
            lengths |= {"tokens": _quantiles(self.texts.num_tokens_N), "context": self.context, "cut": self.num_cut}
        copies = self.copies
        return {
            "findings": [{"severity": f.severity, "pairs": f.pairs, "text": f.text} for f in self.findings],
            "pairs": self.num_pairs,
            "patients": self.num_patients,
            "without_patient": self.num_without_patient,
            "patients_in_several_splits": self.num_patients_in_splits,
            "counts": [asdict(row) for row in self.counts],
            "lengths": lengths,
            "texts": {name: int(mask.sum()) for name, mask in self.texts.faults.items()},
            "distinct_texts": self.boilerplate.num_distinct,
            "repeated_texts": int(self.boilerplate.is_repeated_N.sum()),
            "sentences_withheld": self.boilerplate.num_withheld,
            "concepts": {
                "metadata": self.concepts.metadata,
                "listed": self.concepts.num_listed,
                "named": len(self.concepts.concepts),
                "pairs_that_name_one": int(self.concepts.names_any_N.sum()),
                "tail": _tail_dict(self.concepts.affirmed),
            },
            "words": _tail_dict(self.words),
            "copies": {
                "pairs": copies.num_copies,
                "by_way": dict(copies.by_way),
                "linked": int(copies.is_linked_N.sum()),
                "across_patients": int(copies.across_patients_N.sum()),
                "across_splits": int(copies.across_splits_N.sum()),
                "with_another_text": int(copies.other_text_N.sum()),
                "unread": dict(copies.unread),
            },
            "against": [
                {
                    "name": one.name,
                    "theirs": one.num_theirs,
                    "with_an_image": int(one.has_image_N.sum()),
                    "by_way": dict(one.by_way),
                    "of_a_patient": int(one.has_patient_N.sum()),
                    "patients": one.num_patients,
                    "either": int((one.has_image_N | one.has_patient_N).sum()),
                }
                for one in self.against
            ],
            "alignment": None
            if self.alignment is None
            else {"pack": self.alignment.pack, "modalities": [asdict(one) for one in self.alignment.modalities]},
            "pile": self.pile_digest,
            "out": None if self.out is None else str(self.out),
        }

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables by name: counts, concepts, sentences, pairs and links, alignment."""
        import pyarrow as pa

        pairs: dict[str, Any] = {
            "key": list(self.keys),
            "letters": self.texts.num_letters_N,
            "words": self.texts.num_words_N,
        }
        if self.texts.num_tokens_N is not None:
            pairs["tokens"] = self.texts.num_tokens_N
        if self.alignment is not None:
            pairs |= {"cosine": self.alignment.cosine_N, "shuffled": self.alignment.shuffled_N}
        pairs |= {name.replace(" ", "_"): mask for name, mask in self.texts.faults.items()}
        pairs |= {
            "boilerplate": self.boilerplate.is_repeated_N,
            "shows_a_copy": self.copies.is_linked_N,
            "in_evaluation": np.logical_or.reduce(
                [np.zeros(self.num_pairs, bool), *(a.has_image_N | a.has_patient_N for a in self.against)]
            ),
        }
        links = [("", self.copies.links, [self.keys[row] for row in self.copies.links.other_K.tolist()])]
        links += [(one.name, one.links, list(one.keys)) for one in self.against]
        tables = {
            "counts": pa.Table.from_pylist([asdict(row) for row in self.counts]),
            "concepts": pa.Table.from_pylist([{**asdict(c), "pairs": c.pairs} for c in self.concepts.concepts]),
            "sentences": pa.Table.from_pylist([asdict(one) for one in self.boilerplate.repeats]),
            "pairs": pa.table(pairs),
            "links": pa.table(
                {
                    "key": [self.keys[row] for _, one, _ in links for row in one.one_K.tolist()],
                    "set": [name for name, one, _ in links for _ in range(len(one.one_K))],
                    "other": [key for _, _, keys in links for key in keys],
                    "way": [WAYS[way] for _, one, _ in links for way in one.way_K.tolist()],
                    "value": [value for _, one, _ in links for value in one.value_K.tolist()],
                }
            ),
        }
        if self.alignment is not None:
            rows = [
                {k: v for k, v in asdict(one).items() if k not in ("edges", "matched_counts", "shuffled_counts")}
                for one in self.alignment.modalities
            ]
            for row in rows:
                for name in ("matched", "shuffled"):
                    ends = row.pop(name) or (None,) * 3
                    row |= {f"{name}_{q}": value for q, value in zip(("5", "50", "95"), ends, strict=True)}
            tables["alignment"] = pa.Table.from_pylist(rows)
        return {name: table for name, table in tables.items() if table.num_columns}


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
        MedclipError: NOTHING_TO_DO for a pile without a pair; WRONG_USE for a pack without words; what `read_metadata`
            raises.
    """
    if not len(pile):
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no pair to look at.", where=pile.place)
    if model is not None and not model.has_text:
        raise no_words(model.name, ", which are compared with images here")
    concepts = read_metadata(metadata)
    rng = np.random.default_rng(seed)
    patients_N, is_known_N = _patients(pile)
    texts = texts_of(pile)
    facts = look_at_texts(pile, texts, None if model is None else model.tokenizer, progress)
    boilerplate = find_boilerplate(texts, facts, patients_N, is_known_N, progress)
    named = count_concepts(texts, concepts, patients_N, progress)
    vectors_ND = None if model is None else encode_pile(model, pile, np.arange(len(pile)), progress).vectors_MD
    copies = find_copies(pile, others, facts, model, vectors_ND, settings, progress, seed)
    modalities, alignment = pile.cells("modality"), None
    if model is not None and vectors_ND is not None:
        pack = {name: str(value) for name, value in pack_facts(model).items()}
        alignment = measure_alignment(
            model, pack, vectors_ND, texts, modalities, patients_N, facts.hash_N, progress, rng
        )
    look = PileLook(
        len(pile),
        len(np.unique(patients_N[is_known_N])),
        int((~is_known_N).sum()),
        _num_in_splits(pile, patients_N, is_known_N),
        tuple(_counts(pile, facts, named, patients_N, is_known_N)),
        facts,
        None if model is None else model.tokenizer.context_length,
        boilerplate,
        named,
        count_words(texts, progress),
        copies,
        alignment,
        pile.digest,
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
    named: ConceptCounts,
    patients_N: NDArray[np.int64],
    is_known_N: NDArray[np.bool_],
) -> list[CountRow]:
    """Count the pairs and the known patients of each value."""
    rows = []
    for column in COLUMNS:
        cells = list(facts.languages) if column == "language" else pile.cells(column)
        for value, num in sorted(Counter(cells).items(), key=lambda item: (-item[1], item[0])):
            of_N = np.fromiter((cell == value for cell in cells), bool, len(cells))
            rows.append(_count_row(column, value, of_N, patients_N, is_known_N))
    group_N = np.digitize(facts.num_words_N, _LENGTHS)
    for group in range(len(_LENGTHS) + 1):
        of_N = group_N == group
        if of_N.any():
            rows.append(_count_row("words", _length_name(group), of_N, patients_N, is_known_N))
    return rows


def _length_name(group: int) -> str:
    if group == 0:
        return "0"
    first = _LENGTHS[group - 1]
    return f"{first} and more" if group == len(_LENGTHS) else f"{first} to {_LENGTHS[group] - 1}"


def _count_row(
    column: str, value: str, of_N: NDArray[np.bool_], patients_N: NDArray[np.int64], is_known_N: NDArray[np.bool_]
) -> CountRow:
    patients = len(np.unique(patients_N[of_N & is_known_N]))
    return CountRow(column, value, int(of_N.sum()), patients, float(of_N.mean()))


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
    names, chosen = np.array(modalities, object), []
    for modality in sorted(set(modalities)) if num else ():
        rows = np.flatnonzero(names == modality)
        if alignment is None:
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
    images = dict(zip(wanted, (_small(image) for image in pile.images(wanted)), strict=True)) if wanted else {}
    examples = []
    for end, row in chosen:
        cosine = None if alignment is None else float(alignment.cosine_N[row])
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


def _small(image: NDArray[np.uint8] | MedclipError) -> bytes | None:
    return None if isinstance(image, MedclipError) else encode(fit(image, THUMBNAIL_PX), "jpeg", 70)


def _beginning(text: str) -> str:
    line = " / ".join(" ".join(part.split()) for part in text.split("\n"))
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 1]}…"


def _quantiles(values_N: NDArray[np.int64]) -> dict[str, int]:
    """Return the least, the median, and what 5 and 95 % lie below."""
    ends = np.quantile(values_N, (0, 0.05, 0.5, 0.95, 1), method="inverted_cdf")
    return dict(zip(("least", "5%", "median", "95%", "most"), map(int, ends.tolist()), strict=True))


def _tail_dict(tail: Tail) -> dict[str, Any]:
    return {
        "different": len(tail.counts_K),
        "mentions": int(tail.counts_K.sum()),
        "share_of_ten": tail.share_of_top,
        "rare": tail.num_rare,
        "share_of_rare": tail.share_of_rare,
        "gini": tail.gini,
    }
