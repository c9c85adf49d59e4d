"""What a pile of pairs looks like, as values: figures for the page and JSON, and the tables beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medclip.files.tables.write import schema_of, table_of
from medclip.pairs.looking.alignment import Alignment
from medclip.pairs.looking.boilerplate import Boilerplate, Repeat
from medclip.pairs.looking.copies import Against, Copies
from medclip.pairs.looking.mentions import Concept, ConceptCounts, Tail
from medclip.pairs.looking.texts import TextFacts
from medclip.pairs.selection.image_links import WAYS
from medclip.result import Result, named_counts
from medclip.wording import number, percent_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


Severity = Literal["bad", "wait", "good"]


@dataclass(frozen=True)
class Finding:
    """One sentence, how bad it is, and of how many pairs it speaks."""

    severity: Severity
    text: str
    pairs: int = 0
    rank: int = 0
    """Those of a higher one stand before others of their severity."""


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
    """JPEG, or the PNG of a drawn ECG; None where it is left out or cannot be read."""
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
    num_synthetic: int
    """Pairs whose image was made, and is of no patient."""
    num_synthetic_held_out: int
    """Those of them in a split that figures of patients are measured on."""
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
    thing: Literal["image", "record", "image or record"] = "image"
    """What texts stand beside: images, ECG records, or some the one and some the other."""
    findings: tuple[Finding, ...] = ()
    examples: tuple[Example, ...] = ()
    keys: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def a_thing(self) -> str:
        """What a text stands beside, with its article."""
        return f"{'a' if self.thing == 'record' else 'an'} {self.thing}"

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
            linked = int(one.to_drop_N.sum())
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
            "synthetic": self.num_synthetic,
            "synthetic_in_evaluation": self.num_synthetic_held_out,
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
                "like_another_patients": int((copies.alike_patients_N & ~copies.across_patients_N).sum()),
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
                    "to_drop": int(one.to_drop_N.sum()),
                }
                for one in self.against
            ],
            "alignment": None
            if self.alignment is None
            else {"pack": self.alignment.pack, "modalities": [asdict(one) for one in self.alignment.modalities]},
            "of": self.thing,
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
            pairs["no_cosine"] = pa.array(self.alignment.why_N, pa.string())
        pairs |= {name.replace(" ", "_"): mask for name, mask in self.texts.faults.items()}
        pairs |= {
            "boilerplate": self.boilerplate.is_repeated_N,
            "shows_a_copy": self.copies.is_linked_N,
            "in_evaluation": np.logical_or.reduce(
                [np.zeros(self.num_pairs, bool), *(a.to_drop_N for a in self.against)]
            ),
        }
        links = [("", self.copies.links, [self.keys[row] for row in self.copies.links.other_K.tolist()])]
        links += [(one.name, one.links, list(one.keys)) for one in self.against]
        tables = {
            "counts": table_of(self.counts, CountRow, schema_of(CountRow)),
            "concepts": table_of(self.concepts.concepts, Concept, schema_of(Concept)),
            "sentences": table_of(self.boilerplate.repeats, Repeat, schema_of(Repeat)),
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
        return tables


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
