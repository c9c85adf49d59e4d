"""Rewrite the words of image-text pairs: cleaned, long and short texts, one-change negatives, tags, weights.

    result = rewrite(Rewriting(Path("reports.csv"), Path("rewritten"), RewriteSteps(modality="xray")))

Every row of the input is one row of rewritten.parquet with its reason. Rules need a second for thousands of reports and
are run again by a second call; what an agent answered is kept in a journal, one commit each, so that a run that was
killed, or whose endpoint went away, goes on where it was and ends in the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_run, remove_drafts, write_file
from medclip.files.tables.table import TextForm
from medclip.files.tables.write import parquet_bytes
from medclip.pairs.journal import Journal
from medclip.pairs.pile import read_pile
from medclip.pairs.selection.clip_score import score_pairs
from medclip.pairs.selection.pack_vectors import encode_pile, pack_facts
from medclip.pairs.sources.captioned_table import generator_of
from medclip.pairs.words.agent import AgentRefused
from medclip.pairs.words.reports.balanced_edits import Editable, balanced_negatives
from medclip.pairs.words.reports.caption_weights import (
    CONFLICT,
    Boilerplate,
    caption_weights,
    polarity_fault,
    restored_normals,
    standardised,
    thresholds,
)
from medclip.pairs.words.reports.hard_negatives import edits_of, text_of_labels
from medclip.pairs.words.reports.report_agents import ReportAgent, fault_of_answer
from medclip.pairs.words.reports.report_cleaning import clean_report, tags_of
from medclip.pairs.words.reports.rewrite_steps import RewriteSteps
from medclip.pairs.words.reports.rewriting_rows import Candidate, RewrittenRow, TextRow, TextRows, read_text_rows
from medclip.pairs.words.reports.rewritten_shards import EDITS, check_edits, read_edit_table, write_rewritten
from medclip.pairs.words.reports.text_only_check import MOST, TextOnlyCheck, check_texts_alone
from medclip.progress import Progress, Silent
from medclip.result import Result, named_counts
from medclip.shards.folder import INDEX
from medclip.text.captions.candidates import RAW
from medclip.text.free_text import sentences
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import spoken_labels
from medclip.wording import count

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.models.model import Model

TABLE, NOTE, REPORT, SHARDS = "rewritten.parquet", "rewrite.json", "report.json", "shards"
WHAT = "rewritten captions"
VERSION = 4
"""Raised when the same rows are rewritten otherwise."""
_JOURNAL_NAME = "reports"


@dataclass(frozen=True)
class Rewriting:
    """What is rewritten, where to and how."""

    place: Path
    out: Path
    steps: RewriteSteps = field(default_factory=RewriteSteps)
    agent: ReportAgent | None = None
    """None for rules alone."""
    form: TextForm | None = None
    """How the text of a table was written, where the user says so."""
    folder: Path = Path()
    """Folder that a table of edits is relative to."""


@dataclass(frozen=True, repr=False)
class RewriteResult(Result):
    """What became of the words of a pile."""

    out: Path
    num_rows: int
    num_rewritten: int
    """Rows with a text that may stand beside their image."""
    num_negatives: int
    counts_by_reason: Mapping[str, int]
    """Rows without a text."""
    counts_by_change: Mapping[str, int]
    """Sentences that were cut, written anew or dropped while cleaning, by what they held."""
    counts_by_edit: Mapping[str, int]
    """Negatives by kind of change."""
    refused_candidates: Mapping[str, int]
    """Captions without a weight, by reason."""
    refused_edits: Mapping[str, int]
    normal_share: float | None
    """Share of rows whose raw text affirms no finding and denies some."""
    normal_share_rewritten: float | None
    check: TextOnlyCheck | None
    """Whether words alone tell false texts from true ones; None for too few patients."""
    shards: Path | None = None
    """Shards with the new texts; None for a table."""
    num_partners: int = 0
    """Edited pairs that were written."""
    refused_partners: Mapping[str, int] = field(default_factory=dict)
    """Training samples without a partner of a kind, by reason."""
    names_patients: bool = True
    """Whether any row names its patient; else each counts as a patient of its own, and the check's interval is by row.
    """
    cautions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def _facts(self) -> dict[str, object]:
        return {
            **({"caution": " ".join(self.cautions)} if self.cautions else {}),
            "texts": f"{self.num_rewritten} of {self.num_rows} rows",
            "without a text": named_counts(self.counts_by_reason),
            "negatives": f"{self.num_negatives} ({named_counts(self.counts_by_edit)})",
            "partners": f"{self.num_partners}; without one: {named_counts(self.refused_partners)}"
            if self.num_partners or self.refused_partners
            else None,
            "words alone": None if self.check is None else f"{self.check.accuracy:.3f}",
            "refused": named_counts(self.refused_candidates),
            "notes": " ".join(self.notes) or None,
            "out": self.out,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        values = {name: dict(v) if isinstance(v, Mapping) else v for name, v in vars(self).items()}
        paths = {name: None if values[name] is None else str(values[name]) for name in ("out", "shards")}
        return (
            values
            | paths
            | {
                "check": None if self.check is None else self.check.to_dict(),
                "cautions": [*self.cautions],
                "notes": [*self.notes],
            }
        )


def rewrite(rewriting: Rewriting, model: Model | None = None, progress: Progress | None = None) -> RewriteResult:
    """Rewrite the words of shards or of a table; see `medclip.api.rewrite.rewrite`."""
    steps, progress = rewriting.steps, progress or Silent()
    rows = read_text_rows(rewriting.place, modality=steps.modality, columns=steps.columns, form=rewriting.form)
    if model is not None and not rows.is_shards:
        raise MedclipError(
            Reason.WRONG_USE,
            "captions are scored against images of shards; this is a table.",
            where=rewriting.place,
            hint="Build shards of it first, or leave out `model` under `captions`.",
        )
    check_edits(rows, steps)
    table = read_edit_table(steps.edits, rewriting.folder)
    identity: dict[str, Any] = {
        "version": VERSION,
        "pairs": rows.digest,
        "steps": json.loads(steps.model_dump_json()),
        "agent": "rules" if rewriting.agent is None else dict(rewriting.agent.identity),
        "model": None if model is None else pack_facts(model),
        "edit_table": table.digest,
    }
    claim_run(rewriting.out, WHAT, identity, NOTE)
    answers = _answers(rewriting, rows, progress)
    written = [_rewritten(row, steps, answers.get(n)) for n, row in enumerate(rows.rows)]
    written, restored = _weighed(written, rows, steps, model, progress)
    written, refused_edits = _with_negatives(written, steps)
    result = _result(rewriting.out, written, refused_edits, restored, steps)
    if rows.is_shards:
        shards = rewriting.out / SHARDS
        if not (shards / INDEX).exists() or (steps.edits.are_wanted and not (rewriting.out / EDITS).exists()):
            shutil.rmtree(shards, ignore_errors=True)  # of a run that ended before the table of edits was written
            remove_drafts(rewriting.out)
            write_rewritten(rows.place, shards, written, steps, table)
        result = replace(result, shards=shards)
        if steps.edits.are_wanted:
            result = _with_partners(result, rewriting.out / EDITS)
    report = {name: value for name, value in result.to_dict().items() if name not in ("out", "shards")}
    write_file(rewriting.out / REPORT, json.dumps(report, indent=2, sort_keys=True) + "\n")
    write_file(rewriting.out / TABLE, parquet_bytes(_table(written)))
    return result


def _with_partners(result: RewriteResult, edits: Path) -> RewriteResult:
    """Add what the table of edits says; a caution where nothing came of them."""
    import pyarrow.parquet as pq

    table = pq.read_table(edits, columns=["reason", "pair"])
    counts = Counter(reason for reason in table.column("reason").to_pylist() if reason)
    num = len(set(table.column("pair").to_pylist()) - {""})
    cautions = list(result.cautions)
    if not num:
        sources = ""
        if counts["letters_not_ruled_out"]:
            sources = (
                " Of images with a fitting text the source is not among `without_letters`, and `detect_letters` is off."
            )
        cautions.append(f"No edited partner was written.{sources}")
    return replace(result, num_partners=num, refused_partners=_sorted(counts), cautions=tuple(cautions))


def _answers(rewriting: Rewriting, rows: TextRows, progress: Progress) -> Mapping[int, tuple[str, str]]:
    """Return what the agent wrote of each row with a text, or why it wrote nothing; asked for once."""
    agent = rewriting.agent
    if agent is None:
        return {}
    wanted = [n for n, row in enumerate(rows.rows) if row.raw.strip()]
    with Journal(rewriting.out) as journal:
        done = journal.numbers(_JOURNAL_NAME)
        open_ones = [n for n in wanted if n not in done]
        progress.stage("Asking", len(open_ones))
        at_once = agent.asking.at_once
        with ThreadPoolExecutor(at_once) as pool:
            for start in range(0, len(open_ones), 4 * at_once):
                part = open_ones[start : start + 4 * at_once]
                futures = {n: pool.submit(agent.rewrite, _question(rows.rows[n])) for n in part}
                _note(journal, futures, progress)
        return {n: (facts["text"], facts["refused"]) for n, facts in journal.texts(_JOURNAL_NAME)}


def _question(row: TextRow) -> str:
    """Return what an agent is told of a row: the cleaned text, which names nobody, and never the raw one."""
    return clean_report(row.raw, row.modality).text or "No findings are described."


def _note(journal: Journal, futures: Mapping[int, Future[Any]], progress: Progress) -> None:
    """Keep each answer; an agent that is gone ends the run after the answers that came."""
    gone: MedclipError | None = None
    for number, future in futures.items():
        try:
            text, refused = future.result().text, ""
        except AgentRefused as e:
            text, refused = "", str(e)
        except MedclipError as e:
            gone = gone or e
            continue
        journal.note_text(_JOURNAL_NAME, number, {"text": text, "refused": refused})
        progress.step()
    if gone is not None:
        raise gone


def _findings_of(labels: Mapping[str, Any]) -> dict[str, bool]:
    """Return the classes of multi-label tasks that labels state: what a caption may not say otherwise."""
    return {
        name: bool(value)
        for task, label in spoken_labels(labels).items()
        if load_task(task).rules.independent and isinstance(label, Mapping)
        for name, value in label.items()
    }


def _rewritten(row: TextRow, steps: RewriteSteps, answer: tuple[str, str] | None) -> RewrittenRow:
    """Clean one row and gather its captions; of a row without words, write what its labels say."""
    stated = _findings_of(row.labels)
    if not row.raw.strip():
        text, edits = text_of_labels(row.labels, generator_of([row.key], steps.seed))
        if not text:
            return RewrittenRow(row, "no_text")
        editable = Editable(text, edits, row.modality, row.labels)
        affirmed, denied = (tuple(sorted(n for n, v in stated.items() if v is side)) for side in (True, False))
        short = sentences(text, min_words=1)[0]
        of_labels = (Candidate("labels", text),)
        return RewrittenRow(row, "", text, text, short, of_labels, editable, (), affirmed, denied)
    clean = clean_report(row.raw, row.modality)
    affirmed, denied = tags_of(row.raw if not clean.text else clean.text, row.modality)
    kept = [s for s in sentences(clean.text, min_words=1) if not polarity_fault(s, "", row.modality, stated)]
    long = " ".join(kept)
    candidates: list[Candidate] = []
    parts = (("findings", clean.findings), ("impression", clean.impression), ("cleaned", _cut(long, steps.max_words)))
    for kind, text in parts:
        if text and text not in [c.text for c in candidates]:
            candidates.append(Candidate(kind, text, polarity_fault(text, clean.text, row.modality, stated)))
    if row.raw not in [c.text for c in candidates]:  # one that needed no cleaning is a clean one
        candidates.insert(0, Candidate(RAW, row.raw, polarity_fault(row.raw, "", row.modality, stated)))
    if answer is not None:
        text, refused = answer
        fault = "agent_failed" if refused else fault_of_answer(text, clean.text, row.modality, stated)
        candidates.append(Candidate("agent", text, fault))
    positive = next((c.text for c in candidates if c.kind == "agent" and not c.reason), _cut(long, steps.max_words))
    if not positive:
        reason = CONFLICT if clean.text else "nothing_left"
        return RewrittenRow(row, reason, candidates=tuple(candidates), changes=clean.changes)
    short = next(iter(sentences(clean.impression, min_words=1)), "")
    short = short if short in kept else sentences(positive, min_words=1)[0]
    editable = Editable(positive, edits_of(positive, row.modality), row.modality)
    return RewrittenRow(
        row, "", positive, long, short, tuple(candidates), editable, (), affirmed, denied, changes=clean.changes
    )


def _cut(text: str, max_words: int) -> str:
    """Keep the first sentences with so many words together; at least one."""
    taken: list[str] = []
    for sentence in sentences(text, min_words=1):
        if taken and len(" ".join([*taken, sentence]).split()) > max_words:
            break
        taken.append(sentence)
    return " ".join(taken)


def _weighed(
    written: Sequence[RewrittenRow], rows: TextRows, steps: RewriteSteps, model: Model | None, progress: Progress
) -> tuple[list[RewrittenRow], int]:
    """Score and weigh the captions of all rows; and how many normal rows got their text back."""
    boilerplate = Boilerplate([w.row.raw for w in written])
    flat = [(n, k) for n, w in enumerate(written) for k in range(len(w.candidates))]
    modalities = [written[n].row.modality for n, _ in flat]
    cosines = np.full(len(flat), np.nan)
    if model is not None:
        texts = [written[n].candidates[k].text for n, k in flat]
        cosines = _cosines(model, rows.place, [written[n].row.key for n, _ in flat], texts, progress)
    scores = standardised(cosines, modalities)
    least = thresholds(scores, modalities, steps.captions.percentile)
    weighed: list[RewrittenRow] = []
    scored: list[RewrittenRow] = []
    at = 0
    for w in written:
        own = scores[at : at + len(w.candidates)]
        at += len(w.candidates)
        candidates = tuple(
            replace(c, alignment=float(s), information=boilerplate.information(c.text, w.row.modality))
            for c, s in zip(w.candidates, own, strict=True)
        )
        scored.append(replace(w, candidates=candidates))
        weighed.append(_weighted(scored[-1], least.get(w.row.modality, -np.inf), steps))
    normal_N = np.array([_is_normal(w) for w in weighed], bool)
    rewritten_N = np.array([any(c.weight and c.kind != RAW for c in w.candidates) for w in weighed], bool)
    again = restored_normals(rewritten_N, normal_N & np.array([bool(w.positive) for w in weighed], bool))
    for number in again:
        weighed[number] = _weighted(scored[number], -np.inf, steps)
    return weighed, len(again)


def _cosines(
    model: Model, shards: Path, keys: Sequence[str], texts: Sequence[str], progress: Progress
) -> NDArray[np.float64]:
    """Return the cosine of each text with the image of its sample; NaN where that cannot be read."""
    pile = read_pile(shards, progress=progress)
    place_of = {key: row for row, key in enumerate(pile.cells("key"))}
    rows_M, image_K = np.unique([place_of[key] for key in keys], return_inverse=True)
    vectors_MD = encode_pile(model, pile, rows_M.astype(np.int64), progress).vectors_MD
    return score_pairs(model, vectors_MD[image_K], [" ".join(text.split()) for text in texts], progress)


def _is_normal(w: RewrittenRow) -> bool:
    return bool(w.positive) and not w.tags


def _weighted(w: RewrittenRow, least: float, steps: RewriteSteps) -> RewrittenRow:
    """Weigh the captions of one row; those that may not stand have none, and where none passes the raw text has all."""
    if not w.candidates:
        return w
    marked: list[Candidate] = []
    for c in w.candidates:
        reason = c.reason or ("alignment" if c.alignment < least else "")
        marked.append(replace(c, reason=reason))
    weights = np.zeros(len(marked))
    rewritten = [n for n, c in enumerate(marked) if not c.reason and c.kind != RAW]
    if rewritten:
        alignment = np.nan_to_num(np.array([marked[n].alignment for n in rewritten]))
        information = np.array([marked[n].information for n in rewritten])
        weights[rewritten] = caption_weights(alignment, information, temperature=steps.captions.temperature)
    else:
        weights[[n for n, c in enumerate(marked) if c.kind == RAW and c.reason != CONFLICT]] = 1
    return replace(w, candidates=tuple(replace(c, weight=float(v)) for c, v in zip(marked, weights, strict=True)))


def _with_negatives(
    written: Sequence[RewrittenRow], steps: RewriteSteps
) -> tuple[list[RewrittenRow], Mapping[str, int]]:
    editable = [(n, w.editable) for n, w in enumerate(written) if w.editable is not None]
    negatives, refused = balanced_negatives(
        [text for _, text in editable],
        most=steps.negatives.per_text,
        seed=steps.seed,
        balance=steps.negatives.balance,
    )
    refused = refused if steps.negatives.per_text else {}  # nothing was asked for
    done = list(written)
    for (number, _), of_text in zip(editable, negatives, strict=True):
        done[number] = replace(done[number], negatives=of_text)
    return done, refused


def _result(
    out: Path, written: Sequence[RewrittenRow], refused_edits: Mapping[str, int], restored: int, steps: RewriteSteps
) -> RewriteResult:
    pairs = [(w.positive, n.text, w.row.patient or w.row.key) for w in written for n in w.negatives]
    check = check_texts_alone(*map(list, zip(*pairs, strict=True)), seed=steps.seed) if pairs else None
    texts = [w for w in written if w.candidates]
    rewritten = [w for w in texts if any(c.weight and c.kind != RAW for c in w.candidates)]
    normal, normal_rewritten = (sum(map(_is_normal, part)) / len(part) if part else None for part in (texts, rewritten))
    cautions, notes = [], []
    if check is not None and not check.passes:
        cautions.append(
            f"Words alone tell the false texts from the true ones: {100 * check.accuracy:.1f} % are right, more than "
            f"{100 * MOST:.0f} %. A loss of hard negatives would be solved without the image; train without them, or "
            "leave `balance` of the negatives on."
        )
    if check is None and pairs:
        notes.append("Too few patients have negatives to ask whether words alone tell the false texts from true ones.")
    lonely = sum(w.negative_reason == "no_partner" for w in written)
    if lonely and not pairs and steps.negatives.per_text:
        notes.append(
            f"No text has a negative: {count(lonely, 'text')} could be changed, and for none there is a partner that "
            "has the reverse change. More reports have more partners; `negatives: {balance: false}` does without, and "
            "words may then betray the false texts."
        )
    if check is not None and not any(w.row.patient for w in written):
        notes.append("No row names its patient: the check's interval takes each row for a patient of its own.")
    if restored:
        notes.append(f"{restored} normal rows got a rewritten text back that scored low: their share would have sunk.")
    return RewriteResult(
        out=out,
        num_rows=len(written),
        num_rewritten=sum(not w.reason for w in written),
        num_negatives=len(pairs),
        counts_by_reason=_sorted(Counter(w.reason for w in written if w.reason)),
        counts_by_change=_sorted(sum((Counter(w.changes) for w in written), Counter[str]())),
        counts_by_edit=_sorted(Counter(n.edit_type for w in written for n in w.negatives)),
        refused_candidates=_sorted(Counter(c.reason for w in written for c in w.candidates if c.reason)),
        refused_edits=dict(refused_edits),
        normal_share=normal,
        normal_share_rewritten=normal_rewritten,
        check=check,
        cautions=tuple(cautions),
        notes=tuple(notes),
        names_patients=any(w.row.patient for w in written),
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _table(written: Sequence[RewrittenRow]) -> pa.Table:
    import pyarrow as pa

    text, real, texts = pa.string(), pa.float64(), pa.list_(pa.string())
    candidate = [("kind", text), ("text", text), ("reason", text)]
    candidate += [(name, real) for name in ("alignment", "information", "weight")]
    spans = [(name, text) for name in ("text", "edit_type", "entity", "before", "after")]
    spans += [(name, pa.int64()) for name in ("start", "end")]
    plain = ("key", "split", "patient", "modality", "reason", "positive", "long", "short", "negative_reason")
    schema = pa.schema(
        [
            *((name, text) for name in plain),
            ("negatives", pa.list_(pa.struct(spans))),
            ("tags", texts),
            ("denied_tags", texts),
            ("candidates", pa.list_(pa.struct(candidate))),
        ]
    )
    rows = [
        {
            **{name: getattr(w.row, name) for name in plain[:4]},
            **{name: getattr(w, name) for name in (*plain[4:], "tags", "denied_tags")},
            "negatives": [vars(n) for n in w.negatives],
            "candidates": [vars(c) for c in w.candidates],
        }
        for w in written
    ]
    return pa.Table.from_pylist(rows, schema=schema)
