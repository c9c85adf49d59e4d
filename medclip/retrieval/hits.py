"""What a search returns: hits in their order, how far they stand out of the folder, and what must be known of them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medclip.embeddings.embedded_unit import Level
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file, write_file
from medclip.files.tables.write import csv_bytes, parquet_bytes, schema_of, table_of
from medclip.result import GREY, Result
from medclip.settings import Settings
from medclip.slides.slide_store import SlideStore, patch_jpeg
from medclip.wording import count, figure, number

if TYPE_CHECKING:
    import pyarrow as pa

Ranked = Level | Literal["patches"]
"""What can be ranked: a level of embeddings, or the patches of slides."""
NOUNS: Mapping[Ranked, str] = {"views": "view", "units": "unit", "studies": "study", "patches": "patch"}
NO_PROBABILITY = (
    "Scores give an order. They come from cosines between vectors of a model and are no probabilities: 0.3 may be a "
    "lot for one model and little for another."
)
_SHOWN = 12
"""Hits with their images in a notebook."""
IMAGES_OF_A_STUDY = 4


@dataclass(frozen=True)
class Hit:
    """One place of the ranking. Field order is column order."""

    rank: int
    row: int
    """Number of the file, of the first one where several are read together or make a study."""
    file: str
    """Its number and format; its path only where paths were asked for."""
    study: str
    """Keyed hash of the study."""
    patient: str | None
    """Keyed hash of the patient, where one is known."""
    modality: str
    score: float
    """What hits are ordered by."""
    z: float | None
    """Standard deviations above the mean score of all that was looked at; None where all scores are equal."""
    words: float | None
    """Cosine with the mean of the phrasings."""
    spread: float | None
    """Standard deviation of the cosine over the phrasings (ddof 1); None for one phrasing."""
    without: float | None
    """Cosine with what is not looked for."""
    like: float | None
    """Cosine with the example."""
    view: str | None
    laterality: str | None
    body_part: str | None
    num_images: int
    """Units of the study; 1 otherwise."""
    image: int | None = None
    """Which image of its file, from 1; only where single views are ranked."""
    caution: str | None = None
    """Why words say little of such an image, as `ScoreRow.caution`: what the model was never taught, or what holds
    within its source only. None where nothing is known against them, and where nothing was asked in words."""


@dataclass(frozen=True)
class PatchHit(Hit):
    """One patch of a slide; `file` is that of the slide, `row` its row in slides.parquet, from 1."""

    slide: str = ""
    """Key of the slide: names its file in the store."""
    top_um: float = 0.0
    """Of the patch's corner, from the slide's."""
    left_um: float = 0.0
    x_px: int = 0
    """Of the corner, in pixels of the finest resolution."""
    y_px: int = 0
    coverage: float = 0.0
    """Share of the patch that is tissue, 0-1."""

    @property
    def name(self) -> str:
        """What the patch is as an example of another search: KEY@TOP,LEFT in µm."""
        return f"{self.slide}@{self.top_um:.10g},{self.left_um:.10g}"


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult(Result):
    """The answer to one question."""

    hits: tuple[Hit, ...]
    level: Ranked
    words: tuple[str, ...]
    without: tuple[str, ...]
    like: tuple[str, ...]
    """Examples, named as files of hits are."""
    where: tuple[str, ...]
    num_searched: int
    """Views, units or studies that were looked at."""
    num_left_out: int
    """Those that conditions, the example itself and its patient left out."""
    mean: float
    """Of the scores of all that was looked at."""
    sd: float
    engine: str
    """What vectors were compared through: exact, or an approximate index."""
    notes: tuple[str, ...]
    """Sentences that must be read with the hits."""
    units_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Rows of the units of each study among the hits, the first few; only where studies are ranked."""
    embeddings: Embeddings | SlideStore | None = None
    """The folder that was searched."""
    images: Path | None = None
    """Folder of the slides, which small images of patches are read from."""
    settings: Settings | None = None

    @property
    def noun(self) -> str:
        """What is ranked: view, unit or study."""
        return NOUNS[self.level]

    @property
    def question(self) -> str:
        """The question in one line."""
        parts = [" | ".join(self.words)]
        parts += [f"not {text}" for text in self.without]
        parts += [f"like {name}" for name in self.like]
        parts += [f"where {condition}" for condition in self.where]
        return "; ".join(part for part in parts if part)

    def thumbnails(self, hit: Hit) -> list[tuple[int, bytes | None]]:
        """Return the small images of a hit: row, and JPEG bytes; b"" where none is kept, None where it is withheld.

        An image is withheld where its header says that text is burned into it. Patches are read from their slides.
        """
        assert self.embeddings is not None
        if isinstance(self.embeddings, SlideStore):
            return [(hit.row, self._patch(self.embeddings, hit) if isinstance(hit, PatchHit) else b"")]
        rows = self.units_of.get(hit.study, ()) or (hit.row,)
        return [(row, None if row in self._burned_in else self.embeddings.thumbnail(row)) for row in rows]

    def _patch(self, store: SlideStore, hit: PatchHit) -> bytes:
        if self.images is None:
            return b""
        row, features = store.rows[hit.row - 1], store.read(hit.slide, vectors=False)
        return patch_jpeg(self.images, row, features, (hit.top_um, hit.left_um), self.settings or Settings())

    @cached_property
    def _burned_in(self) -> frozenset[int]:
        assert isinstance(self.embeddings, Embeddings)
        rows = sorted({hit.row for hit in self.hits} | {row for rows in self.units_of.values() for row in rows})
        table = self.embeddings.columns("units", ["row", "burned_in"], rows)
        return frozenset(row for row, burned in zip(*(c.to_pylist() for c in table.columns), strict=True) if burned)

    @property
    def table(self) -> pa.Table:
        """The hits as an Arrow table."""
        kind = type(self.hits[0])
        return table_of(self.hits, kind, schema_of(kind))

    def write(self, path: str | Path) -> Path:
        """Write the hits as .parquet or .csv, its owner's alone.

        Raises:
            MedclipError: WRONG_USE for another suffix; as `medclip.files.output.disk_errors`.
        """
        return write_hits(Path(path), self.table)

    def to_json(self) -> str:
        """Return everything as JSON text."""
        names = ("level", "words", "without", "like", "where", "num_searched", "num_left_out", "mean", "sd", "engine")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.embeddings is not None:
            facts["model"] = {"name": self.embeddings.pack.name, "version": self.embeddings.pack.version}
        return json.dumps({**facts, "notes": self.notes, "hits": [asdict(hit) for hit in self.hits]}, indent=1)

    def to_pandas(self) -> Any:
        """Return the hits as a pandas data frame: with the same types of columns for every question."""
        kinds = {"float | None": "float64", "int | None": "Int64", "str | None": "string"}
        columns = fields(type(self.hits[0]))
        return super().to_pandas().astype({f.name: kinds[str(f.type)] for f in columns if str(f.type) in kinds})

    def _facts(self) -> Mapping[str, object]:
        best = self.hits[0]
        facts = {
            "question": self.question,
            "hits": f"{number(len(self.hits))} of {count_of(self.num_searched, self.noun)}",
            "best": f"{figure(best.score, decimals=3)}, {z_words(best.z)}",
            "engine": self.engine if self.engine != "exact" else "",
            "note": self.notes[0] if self.notes else "",
        }
        return {name: value for name, value in facts.items() if value}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(hit) for hit in self.hits[:most]]

    def _caution(self, row: Mapping[str, Any]) -> str:
        return row["caution"] or ""

    def _repr_html_(self) -> str:
        """Return facts and small images for a notebook: everything escaped, no script, nothing loaded."""
        figures = "".join(self._figure(hit) for hit in self.hits[:_SHOWN]) if self.embeddings is not None else ""
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.notes[1:], NO_PROBABILITY))
        style = "display:flex;flex-wrap:wrap;gap:12px"
        return f'{super()._repr_html_()}<div style="{style}">{figures}</div>{notes}'

    def _figure(self, hit: Hit) -> str:
        images = "".join(map(_image, (body for _, body in self.thumbnails(hit)[:1])))
        label = f"{hit.rank}. {hit.file}, {hit.modality}, {figure(hit.score, decimals=3)} ({z_words(hit.z)})"
        caption = f"<figcaption>{escape(label)}</figcaption>"
        if hit.caution:
            caption = f"<figcaption{GREY}>{escape(label)} · {escape(hit.caution)}</figcaption>"
        return f'<figure style="margin:0;width:160px">{images}{caption}</figure>'


def _image(body: bytes | None) -> str:
    if not body:
        return f"<p>{'Withheld: the header says that text is burned in' if body is None else 'No small image kept'}</p>"
    kind = "png" if body.startswith(b"\x89PNG") else "jpeg"  # of an ECG its sheet
    return f'<img alt="" width="160" src="data:image/{kind};base64,{base64.b64encode(body).decode()}">'


def count_of(num: int, noun: str) -> str:
    """Write how many things of a level there are.

    Example:
        >>> count_of(2, "patch"), count_of(3, "study")
        ('2 patches', '3 studies')
    """
    return count(num, noun, "patches" if noun == "patch" else "")


def z_words(z: float | None) -> str:
    """Write how far a score stands out.

    Example:
        >>> z_words(2.345), z_words(None)
        ('2.3 sd above the mean', 'all alike')
    """
    if z is None:
        return "all alike"
    return f"{figure(abs(z), decimals=1)} sd {'above' if z >= 0 else 'below'} the mean"


def weak_ranks(z: float | None, num_searched: int) -> str:
    """Return a sentence where the order says nothing, since all scores are equal; "" otherwise.

    Whether anything fits the words is not said: of the built-in pack, over images of eight kinds, neither the best
    score nor how far it lies above the mean told words that fit from "a photograph of a cat".

    Args:
        z: Standardised score of the best hit; None where all are equal.
        num_searched: Number of things searched.
    """
    return "All scores are equal: the order says nothing." if z is None and num_searched > 1 else ""


def write_hits(path: Path, table: pa.Table) -> Path:
    """Write a table of hits as .parquet or .csv."""
    check_table_name(path)
    write_file(path, csv_bytes(table) if path.suffix == ".csv" else parquet_bytes(table))
    return path


def claim_hits(*paths: str | Path | None, overwrite: bool) -> None:
    """Refuse a table of hits, and pages, that cannot be written, before anything is computed.

    Args:
        paths: Paths of what is written, the table first; None for what is not written.
        overwrite: Whether existing files are replaced.
    """
    if paths[0] is not None:
        check_table_name(Path(paths[0]))
    for path in paths:
        if path is not None:
            claim_file(Path(path), overwrite=overwrite)


def check_table_name(path: Path) -> None:
    """Refuse a name that is neither .parquet nor .csv."""
    if path.suffix not in (".parquet", ".csv"):
        raise MedclipError(
            Reason.WRONG_USE, "hits are written as .parquet or .csv.", where=path, hint="Name such a file."
        )


def finite(value: float) -> float | None:
    """Return a number that JSON can hold, rounded to six decimals; None for what is none."""
    return round(float(value), 6) if math.isfinite(value) else None
