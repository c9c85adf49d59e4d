"""Write synthetic samples of the tail of a pile beside the real ones (ADR, stage 2).

"From Head to Tail" (Adaptive Data Calibration, 2025) makes images of tail instances by a diffusion model and thins the
others, so that the pile stays about as large. Here generators are those of `GENERATORS`. Every pair of the tail is one
row of synthesized.parquet: what was made of it, or why nothing was. A sample says that it is synthetic, how it was made
and of which samples; none is made of, or lies in, a split of evaluation. All chance is that of the seed and of the
pair's key, so a run that was killed is given again and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_run, remove_drafts, write_file
from medclip.files.tables.write import parquet_bytes
from medclip.lazy import import_name
from medclip.pairs.pile import Pile, read_pile
from medclip.pairs.pile_columns import COLUMNS
from medclip.pairs.selection.balance import gini
from medclip.pairs.selection.deduplicate import evaluation_rows
from medclip.pairs.selection.rebalance import Views, entity_counts, read_views
from medclip.pairs.selection.steps import Context
from medclip.pairs.synthesis.generators import GENERATORS, Generate, Source
from medclip.pairs.synthesis.synthesize_steps import SynthesizeSteps, generators_of
from medclip.progress import Progress, Silent
from medclip.result import Result, named_counts
from medclip.settings import Settings
from medclip.shards.folder import GROUP, HELD_OUT, INDEX, SYNTHETIC, read_index
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import to_json
from medclip.shards.selection import read_selection
from medclip.shards.stored_data import decode, encode
from medclip.shards.writing.rewrite import Addition, rewrite_shards
from medclip.text.captions.draw import draw_caption
from medclip.wording import count, percent_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medclip.text.captions.record import CaptionRecord

TABLE, NOTE, REPORT, SHARDS = "synthesized.parquet", "synthesize.json", "report.json", "shards"
WHAT = "synthetic samples"
VERSION = 3
"""Raised when the same pairs give other samples."""
_QUALITY = 95


@dataclass(frozen=True)
class Synthesis:
    """What samples are made of, where to and how."""

    place: Path
    out: Path
    steps: SynthesizeSteps = field(default_factory=SynthesizeSteps)
    against: tuple[str, ...] = ()
    """Shard folders or tables that models are measured on, beside the other splits of these shards."""
    folder: Path = Path()
    """Folder that paths in the steps are relative to."""


@dataclass(frozen=True, repr=False)
class SynthesisResult(Result):
    """What was made of the tail of a pile."""

    out: Path
    num_pairs: int
    """Pairs of the split."""
    num_tail: int
    num_left_out: int
    """Real pairs of the split that are not in the new shards."""
    num_synthetic: int
    share: float
    """Share of synthetic samples in the new split; with those that it had before."""
    counts_by_kind: Mapping[str, int]
    counts_by_reason: Mapping[str, int]
    """Pairs of the tail of which nothing was made."""
    gini_before: float
    """Gini coefficient of how many pairs name each object."""
    gini_after: float
    shards: Path
    cautions: tuple[str, ...] = ()

    def _facts(self) -> dict[str, object]:
        return {
            **({"caution": " ".join(self.cautions)} if self.cautions else {}),
            "synthetic": f"{self.num_synthetic} ({named_counts(self.counts_by_kind)})",
            "tail": f"{self.num_tail} of {count(self.num_pairs, 'pair')}",
            "nothing made": named_counts(self.counts_by_reason),
            "real ones left out": self.num_left_out,
            "Gini of objects": f"{self.gini_before:.3f} to {self.gini_after:.3f}",
            "shards": self.shards,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        values = {name: dict(v) if isinstance(v, Mapping) else v for name, v in vars(self).items()}
        return values | {"out": str(self.out), "shards": str(self.shards), "cautions": [*self.cautions]}


@dataclass(frozen=True, eq=False)
class _Made:
    """One sample; its image lies in the store of images."""

    row: int
    """Number of the pair of the tail."""
    into: int
    """Number of the pair whose image was changed."""
    key: str
    kind: str
    record: CaptionRecord
    parameters: Mapping[str, Any]
    extension: str
    start: int
    size: int


def synthesize(
    synthesis: Synthesis, settings: Settings | None = None, progress: Progress | None = None
) -> SynthesisResult:
    """Make samples of the tail; see `medclip.api.synthesize.synthesize`."""
    steps, progress, settings = synthesis.steps, progress or Silent(), settings or Settings()
    generators = generators_of(steps)
    index = read_index(synthesis.place)
    _refuse(synthesis, index)
    context = Context(steps.seed, synthesis.folder, settings, progress)
    pile = read_pile(synthesis.place, split=steps.split, settings=settings, progress=progress)
    selections = {
        name: read_selection(synthesis.folder / file)
        for name, file in (("tail", steps.tail_selection), ("real", steps.selection))
        if file is not None
    }
    identity: dict[str, Any] = {
        "version": VERSION,
        "pairs": pile.digest,
        "steps": json.loads(steps.model_dump_json()),
        "selections": {name: selection.digest for name, selection in selections.items()},
        "against": [read_pile(place, settings=settings).digest for place in synthesis.against],
    }
    claim_run(synthesis.out, WHAT, identity, NOTE)
    kept_of = {
        name: _kept(pile, dict(zip(s.table.column("key").to_pylist(), s.kept_N.tolist(), strict=True)), synthesis.place)
        for name, s in selections.items()
    }
    rows_N = np.arange(len(pile))
    views = read_views(pile, rows_N, steps.tail, context)
    rarity_N = _rarity(views)
    chosen_N = kept_of.get("real", np.ones(len(pile), bool))
    tail_N = kept_of.get("tail", rarity_N > 1) & chosen_N
    stays_N = chosen_N & _thinned(pile, tail_N, context, steps.origin_alpha)
    is_real_N = ~np.array(pile.cells(SYNTHETIC), bool)
    num_real, num_before = int((stays_N & is_real_N).sum()), int((stays_N & ~is_real_N).sum())
    others = [split for split, n in index["counts"]["by_split"].items() if n and split != steps.split]
    held_out = [(str(synthesis.place.absolute()), split) for split in others]
    held_out += [(str(place) if "://" in place else str(Path(place).absolute()), None) for place in synthesis.against]
    real = evaluation_rows(pile, rows_N, held_out, context) if held_out else {}

    with ShardReader(synthesis.place, steps.split) as reader, tempfile.TemporaryFile(dir=synthesis.out) as images:
        sources = _sources(reader, pile)
        usable = [
            sources[n] for n in np.flatnonzero(chosen_N).tolist() if n not in real and not _fault(pile, sources[n], n)
        ]
        prepared: list[tuple[str, Generate]] = [
            (name, import_name(GENERATORS[name].target)(chosen, usable, synthesis.folder))
            for name, chosen in generators
        ]
        most_synthetic = int(steps.share / (1 - steps.share) * num_real)
        num_most = max(0, min(int(steps.n_aug * len(pile)), most_synthetic - num_before))
        samples, reasons = _make(pile, reader, sources, tail_N, rarity_N, real, prepared, num_most, images, context)
        copies = _pile_of(samples, pile, images)
        again = evaluation_rows(copies, np.arange(len(samples)), held_out, context) if held_out and samples else {}
        reasons |= {samples[n].row: f"result_{why}" for n, why in again.items()}
        samples = [one for n, one in enumerate(samples) if n not in again]
        shards = synthesis.out / SHARDS
        if not (shards / INDEX).exists():
            remove_drafts(synthesis.out)
            left_out = {key for key, stays in zip(pile.cells("key"), stays_N.tolist(), strict=True) if not stays}
            additions = {steps.split: _additions(samples, pile, reader, images, steps.seed)}
            rewrite_shards(
                synthesis.place, shards, lambda key, members: None if key in left_out else members, additions
            )
    before = _objects(views.of_rows)
    synthetic = _pile_of(samples, pile, images)
    new = read_views(synthetic, np.arange(len(samples)), steps.tail, context).of_rows if samples else []
    after = _objects([*(views.of_rows[n] for n in np.flatnonzero(stays_N).tolist()), *new])
    num_synthetic = len(samples) + num_before
    result = SynthesisResult(
        out=synthesis.out,
        num_pairs=len(pile),
        num_tail=int(tail_N.sum()),
        num_left_out=int((~stays_N & is_real_N).sum()),
        num_synthetic=len(samples),
        share=num_synthetic / max(num_synthetic + num_real, 1),
        counts_by_kind=dict(sorted(Counter(one.kind for one in samples).items())),
        counts_by_reason=dict(sorted(Counter(reasons.values()).items())),
        gini_before=gini(np.array([before[name] for name in before], np.int64)),
        gini_after=gini(np.array([after[name] for name in before], np.int64)),
        shards=shards,
        cautions=_cautions(num_synthetic, num_real, {one.kind for one in samples}),
    )
    report = {name: value for name, value in result.to_dict().items() if name not in ("out", "shards")}
    write_file(synthesis.out / REPORT, json.dumps(report, indent=2, sort_keys=True) + "\n")
    table = _table(pile, views, tail_N, rarity_N, samples, reasons)
    write_file(synthesis.out / TABLE, parquet_bytes(table))
    return result


def _refuse(synthesis: Synthesis, index: Mapping[str, Any]) -> None:
    split = synthesis.steps.split
    if split.lower() in HELD_OUT:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the split {split!r} is one of evaluation: no synthetic sample is made of it, nor lies in it.",
            where=synthesis.place,
            hint="Name the split that is trained on.",
        )
    options = index.get("options") or {}
    if "foreign" in index or options.get(GROUP) or options.get("holds", "images") != "images":
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "samples are made of shards with one image a sample, that medclip built.",
            where=synthesis.place,
            hint="Build shards of a table, without --group.",
        )


def _kept(pile: Pile, kept: Mapping[str, bool], place: Path) -> NDArray[np.bool_]:
    keys = pile.cells("key")
    if not all(key in kept for key in keys):
        raise MedclipError(
            Reason.WRONG_USE, "a selection is of another pile.", where=place, hint="Select from these shards."
        )
    return np.array([kept[key] for key in keys], bool)


def _rarity(views: Views) -> NDArray[np.float64]:
    """Return the largest tau / count of the entities of each row; above 1 it is of the tail."""
    return np.array(
        [
            max((p[e] for view, p in views.p_of.items() for e in instance.get(view, ())), default=0.0)
            for instance in views.of_rows
        ],
        np.float64,
    )


def _thinned(pile: Pile, tail_N: NDArray[np.bool_], context: Context, alpha: float) -> NDArray[np.bool_]:
    """Draw the patients who stay; all of those that have a pair of the tail."""
    units = [patient or key for patient, key in zip(pile.cells("patient"), pile.cells("key"), strict=True)]
    rare = {unit for unit, is_rare in zip(units, tail_N.tolist(), strict=True) if is_rare}
    stays = {unit: unit in rare or context.rng(f"origin {unit}", 0).random() < alpha for unit in dict.fromkeys(units)}
    return np.array([stays[unit] for unit in units], bool)


def _sources(reader: ShardReader, pile: Pile) -> list[Source]:
    def source(n: int, row: Mapping[str, Any], patient: str) -> Source:
        record, _ = reader.record(n)
        sha256, origin = " ".join(row["files"]), row["source"] or ""
        return Source(reader.key(n), patient, sha256, origin, record, lambda: _pixels(reader, n))

    patients = pile.cells("patient")
    return [source(n, row, patients[n]) for n, row in enumerate(reader.provenance())]


def _pixels(reader: ShardReader, n: int) -> NDArray[np.uint8]:
    return np.asarray(reader.image(reader.members(n)).convert("RGB"))


def _fault(pile: Pile, source: Source, n: int) -> str:
    """Return why nothing is made of a pair; "" where it may be."""
    if pile.table.column("synthetic")[n].as_py():
        return "is_synthetic"
    return "generic_image" if source.record.generic else ""


def _make(
    pile: Pile,
    reader: ShardReader,
    sources: Sequence[Source],
    tail_N: NDArray[np.bool_],
    rarity_N: NDArray[np.float64],
    real: Mapping[int, str],
    generators: Sequence[tuple[str, Generate]],
    num_most: int,
    images: IO[bytes],
    context: Context,
) -> tuple[list[_Made], dict[int, str]]:
    """Make samples of the tail, the rarest first; and say why of each other pair nothing was made."""
    number_of = {source.key: n for n, source in enumerate(sources)}
    chance_N = np.array([context.rng(f"order {source.key}", 0).random() for source in sources])
    order = [n for n in np.lexsort([chance_N, -rarity_N]).tolist() if tail_N[n]]
    samples: list[_Made] = []
    reasons: dict[int, str] = {}
    context.progress.stage("Making samples", len(order))
    for n in order:
        context.progress.step()
        source = sources[n]
        fault = real.get(n) or _fault(pile, source, n)
        if fault or len(samples) >= num_most:
            reasons[n] = fault or "enough_made"
            continue
        refusals = []
        for name, generate in generators:
            try:
                one = generate(source, context.rng(f"{name} {source.key}", 0))
            except MedclipError:
                one = "unreadable"
            if isinstance(one, str):
                refusals.append(one)
                continue
            into = number_of[one.into]
            extension, content = _stored(one.image, reader.members(into), reader.index)
            start = images.seek(0, 2)
            images.write(content)
            key = _new_key(source.key, one.into, name, context.seed)
            record = replace(one.record, edit_pairs=())  # no further half of its source's pair
            samples.append(_Made(n, into, key, name, record, one.parameters, extension, start, len(content)))
            break
        else:
            reasons[n] = ", ".join(dict.fromkeys(refusals))
    return samples, reasons


def _new_key(tail: str, into: str, kind: str, seed: int) -> str:
    return hashlib.blake2b(f"synthetic\0{tail}\0{into}\0{kind}\0{seed}".encode(), digest_size=8).hexdigest()


def _stored(image: NDArray[np.uint8], members: Mapping[str, bytes], index: Mapping[str, Any]) -> tuple[str, bytes]:
    """Write an image as the image of a sample is: grey where it is grey, PNG where it is PNG."""
    is_grey = decode(next(members[e] for e in ("png", "jpg", "jpeg", "webp") if e in members)).mode == "L"
    pixels = image[:, :, :1] if is_grey else image
    if "png" in members:
        return "png", encode(pixels, "png", _QUALITY)
    quality = (index.get("options") or {}).get("quality")
    return "jpg", encode(pixels, "jpeg", quality if isinstance(quality, int) else _QUALITY)


def _read(images: IO[bytes], one: _Made) -> bytes:
    images.seek(one.start)
    return images.read(one.size)


def _pile_of(samples: Sequence[_Made], pile: Pile, images: IO[bytes]) -> Pile:
    """Return samples as a pile, as they will be read."""
    import pyarrow as pa

    into = np.array([one.into for one in samples], np.int64)
    columns = {name: pile.cells(name, into) for name in COLUMNS}
    columns |= {"key": [one.key for one in samples], "text": ["\n".join(one.record.texts) for one in samples]}

    def read(rows: Sequence[int]) -> Iterable[NDArray[np.uint8]]:
        return (np.asarray(decode(_read(images, samples[row])).convert("RGB")) for row in rows)

    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    return Pile(table, pile.place, pile.digest, read)


def _additions(
    samples: Sequence[_Made], pile: Pile, reader: ShardReader, images: IO[bytes], seed: int
) -> Iterator[Addition]:
    keys = pile.cells("key")
    for one in samples:
        _, meta = reader.record(one.into)
        synthesis = {"kind": one.kind, "source": keys[one.row], "into": keys[one.into], "parameters": one.parameters}
        facts = {**meta, "key": one.key, "synthetic": True, "synthesis": synthesis}
        if not facts.get("study"):
            facts.pop("study", None)
        caption = draw_caption(one.record, np.random.default_rng([seed, int(one.key, 16)]))
        members = {one.extension: _read(images, one), "json": to_json(one.record, facts), "txt": caption.encode()}
        yield Addition(one.key, keys[one.into], one.kind, members)


def _objects(instances: Sequence[Mapping[str, Sequence[str]]]) -> Counter[str]:
    return entity_counts(instances, "object")


def _cautions(num: int, num_real: int, kinds: set[str]) -> tuple[str, ...]:
    cautions = []
    if num:
        share = percent_of(num, num + num_real)
        cautions.append(f"{count(num, 'sample')} of the new split ({share}) are synthetic: no image of a patient.")
    if "paste" in kinds:
        cautions.append("A pasted lesion lies where it lay in the other image, whatever is there: look at some.")
    return tuple(cautions)


def _table(
    pile: Pile,
    views: Views,
    tail_N: NDArray[np.bool_],
    rarity_N: NDArray[np.float64],
    samples: Sequence[_Made],
    reasons: Mapping[int, str],
) -> Any:
    """Return one row for each pair of the tail."""
    import pyarrow as pa

    of = {one.row: one for one in samples}
    keys, modalities = pile.cells("key"), pile.cells("modality")
    rows: list[dict[str, Any]] = []
    for n in np.flatnonzero(tail_N).tolist():
        p = {e: p[e] for view, p in views.p_of.items() for e in views.of_rows[n].get(view, ())}
        one = of.get(n)
        rows.append(
            {
                "key": keys[n],
                "modality": modalities[n],
                "rarest": max(p, key=lambda e, p=p: (p[e], e)) if p else "",
                "rarity": float(rarity_N[n]),
                "kind": "" if one is None else one.kind,
                "reason": reasons.get(n, ""),
                "synthetic": "" if one is None else one.key,
                "into": "" if one is None else keys[one.into],
                "parameters": "" if one is None else json.dumps(one.parameters, sort_keys=True),
                "text": "" if one is None else "\n".join(one.record.texts),
            }
        )
    types = {"rarity": pa.float64()}
    names = ("key", "modality", "rarest", "rarity", "kind", "reason", "synthetic", "into", "parameters", "text")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, types.get(name, pa.string())) for name in names]))
