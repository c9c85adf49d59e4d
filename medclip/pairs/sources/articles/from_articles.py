"""From packages of articles to shards: read each once, then write all figures, split by article.

An article is what a patient is elsewhere: no split cuts it. Every figure, and every package of which nothing could be
read, ends in one row: a sample, or a row of rejects.parquet with its reason.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.locks import held_folder
from medclip.files.output import claim_run, digest_of, make_folder, new_folder, read_own_note, remove_drafts
from medclip.files.pseudonyms import keyed_hash
from medclip.files.readers.pool import ReadingPool
from medclip.pairs.sources.articles.journal import ArticleJournal
from medclip.pairs.sources.articles.packages import Package, list_packages
from medclip.pairs.sources.articles.read_package import (
    NOT_KEPT,
    ReadFigure,
    ReadForm,
    ReadPackage,
    preprocessing,
    read_package,
)
from medclip.progress import Progress
from medclip.result import Result, named_counts
from medclip.settings import Settings
from medclip.shards.folder import INDEX, NUM_VIEWS, claim_shards, counts_of, read_index, write_index
from medclip.shards.sample_json import to_json
from medclip.shards.stored_data import STORED_AS
from medclip.shards.writing.splits import DEFAULT_SPLITS, check_shares, split_of
from medclip.shards.writing.table import GENERIC
from medclip.shards.writing.tar import SHARD_NAME, TarShard
from medclip.text.captions.record import CaptionRecord
from medclip.wording import count

ARTICLE = "article"
"""Key of the JSON member, beside `record` and `meta`."""
WHAT, NOTE = "unfinished reading of articles", "run.json"
_UNFINISHED = "{}.unfinished"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass(frozen=True)
class ArticlesForm:
    """How shards are made of articles."""

    key: bytes
    """For the hashes that stand for articles where patients have theirs."""
    read: ReadForm = field(default_factory=ReadForm)
    samples_per_shard: int = 500
    splits: Mapping[str, float] = field(default_factory=lambda: DEFAULT_SPLITS)
    seed: int = 0
    source: str = "articles"

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same. Packages may come and go: each is noted by itself."""
        read = {**asdict(self.read), "licenses": sorted(self.read.licenses)}
        return {
            **read,
            "samples_per_shard": self.samples_per_shard,
            "splits": dict(self.splits),
            "seed": self.seed,
            "source": self.source,
            "key": digest_of(self.key.hex()),
            "preprocessing": preprocessing(),
        }


@dataclass(frozen=True, repr=False)
class ArticlesReport(Result):
    """What became of articles."""

    folder: Path
    num_packages: int
    num_articles: int
    """Those with a sample."""
    num_samples: int
    num_with_context: int
    """Samples that a paragraph cites."""
    num_without_license: int
    """Articles with a sample that state no licence; they count as of the class `other`."""
    articles_by_license: Mapping[str, int]
    counts_by_license_class: Mapping[str, int]
    counts_by_split: Mapping[str, int]
    counts_by_reason: Mapping[str, int]
    num_of_other_licenses: int = 0
    """Figures that were rejected for the licence of their article; they are among those of the reason `other_input`."""

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Return the report of a folder that is written."""
        counts = read_index(folder)["counts"]
        return cls(folder, **counts[ARTICLE], counts_by_split=counts["by_split"], counts_by_reason=counts["by_reason"])

    def _facts(self) -> dict[str, object]:
        return {
            "samples": f"{self.num_samples} ({named_counts(self.counts_by_split)})",
            "articles": f"{self.num_articles} of {count(self.num_packages, 'package')}",
            "cited in the text": self.num_with_context,
            "licences": named_counts(self.articles_by_license),
            "samples by class of licence": named_counts(self.counts_by_license_class),
            "rejected": named_counts(self.counts_by_reason),
            **({"not of a licence that is kept": self.num_of_other_licenses} if self.num_of_other_licenses else {}),
            "folder": self.folder,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def shards_from_articles(
    place: Path, out: Path, form: ArticlesForm, settings: Settings, progress: Progress
) -> ArticlesReport:
    """Make shards of packages of articles. The same packages give the same bytes, however often a run was killed.

    Args:
        place: Folder or list of packages, see `list_packages`.
        out: Folder to make. What was read so far is kept beside it, in a folder whose name ends in `.unfinished`.
        form: Form of the shards.
        settings: Limits and number of processes.
        progress: Progress bar of the packages.

    Raises:
        MedclipError: OUTPUT_IN_USE; MISSING_FILE, TABLE_INVALID or NOTHING_TO_DO of the packages; NOTHING_TO_DO where
            no figure at all could be used; DISK_FULL, BUSY.
    """
    check_shares(form.splits)
    work = out.with_name(_UNFINISHED.format(out.name))
    if (out / INDEX).is_file() and read_own_note(work / NOTE, WHAT) is not None:
        shutil.rmtree(work)  # a run that was killed when nothing was left to do
        return ArticlesReport.of_folder(out)
    claim_shards(out)
    packages = list_packages(place)
    claim_run(work, WHAT, form.identity, NOTE)
    with held_folder(work):
        remove_drafts(work)
        with ArticleJournal(work) as journal:
            _read(packages, journal, form, settings, progress)
            with new_folder(out) as draft:
                _Writing(draft, form).write(packages, journal, place)
        shutil.rmtree(work)
    return ArticlesReport.of_folder(out)


def _read(
    packages: Sequence[Package], journal: ArticleJournal, form: ArticlesForm, settings: Settings, progress: Progress
) -> None:
    """Read the packages that were not read yet."""
    waiting = [package for package in packages if not journal.is_read(package)]
    progress.stage("Articles", len(packages), len(packages) - len(waiting))
    with ReadingPool.of(settings, note=progress.note) as pool:
        jobs = ((package, form.read, settings) for package in waiting)
        for package, future in zip(waiting, pool.map(read_package, jobs, ahead=3 * settings.workers), strict=True):
            try:
                result: ReadPackage = future.result()
            except MedclipError as e:  # a decoder that took its process with it, or the time it has
                result = ReadPackage.rejected(e.problem())
            journal.note(package, result)
            progress.step()


class _Writing:
    """The shards as they are written."""

    def __init__(self, folder: Path, form: ArticlesForm) -> None:
        self.folder, self.form = folder, form
        self.samples: list[dict[str, Any]] = []
        self.rejects: list[dict[str, Any]] = []
        self.shards: list[dict[str, Any]] = []
        self.articles: list[Mapping[str, Any]] = []
        self.classes: Counter[str] = Counter()
        self.num_with_context = 0
        self._shard: TarShard | None = None

    def write(self, packages: Sequence[Package], journal: ArticleJournal, place: Path) -> None:
        """Write all splits, and the index."""
        sides = self._sides(packages, journal)
        order = np.random.default_rng(self.form.seed).permutation(len(packages))
        make_folder(self.folder)
        for split in self.form.splits:
            try:
                for at in order:
                    if sides[at] == split:
                        self._write_package(packages[at], journal.result(packages[at]), split)
                self._close(split)
            finally:
                if self._shard is not None:
                    self._shard.__exit__(None, None, None)
        self.rejects.sort(key=lambda row: row["row"])
        if not self.samples:
            reasons = ", ".join(f"{reason} {n}" for reason, n in counts_of(self.rejects, "reason").items())
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"no figure of {count(len(packages), 'package')} could be used ({reasons}).",
                where=place,
            )
        self._write_index(len(packages))

    def _sides(self, packages: Sequence[Package], journal: ArticleJournal) -> list[str]:
        """Return the split of each package; "" for one that is no sample. Of two with one article the first counts."""
        sides: list[str] = []
        first_of: dict[str, int] = {}
        for package in packages:
            accession = journal.accession_id(package)
            first = first_of.setdefault(accession, package.number) if accession else 0
            if not accession:
                self._reject_all(package, journal.result(package))
            elif first != package.number:
                sentence = f"{accession} is in an earlier package, too."
                self._reject(package, "", "", Problem(Reason.DUPLICATE, sentence))
            is_used = first == package.number
            sides.append(split_of(accession, self.form.splits, self.form.seed) if is_used else "")
        return sides

    def _write_package(self, package: Package, result: ReadPackage, split: str) -> None:
        self._reject_all(package, result)
        if result.figures:
            self.articles.append(result.article)
        for figure in result.figures:
            if self._shard is None:
                number = sum(shard["split"] == split for shard in self.shards)
                self._shard = TarShard(self.folder / SHARD_NAME.format(split=split, number=number))
            self.samples.append(self._add(self._shard, figure, result.article, split))
            self.classes[result.article["license_class"]] += 1
            self.num_with_context += bool(figure.facts["context"])
            if self._shard.num_samples >= self.form.samples_per_shard:
                self._close(split)

    def _add(self, shard: TarShard, figure: ReadFigure, article: Mapping[str, Any], split: str) -> dict[str, Any]:
        """Write a sample; returns its row of samples.parquet."""
        facts, accession = figure.facts, article["accession_id"]
        patient = keyed_hash("patient", accession, self.form.key)
        meta = {
            "key": f"{_file_name(accession)}-{facts['position']:04}",
            "sha256": figure.sha256,
            "patient": patient,
            "adapter": GENERIC,
            "preprocessing": preprocessing(),
            "source": self.form.source,
            "license": article["license"],
            "burned_in": None,
        }
        words = {name: value for name, value in facts.items() if name not in ("caption", "plain_context")}
        record = CaptionRecord(None, texts=(facts["caption"],), long_captions=tuple(facts["plain_context"]))
        members = [
            (STORED_AS[self.form.read.stored], figure.image),
            ("json", to_json(record, meta, {ARTICLE: {**words, ARTICLE: dict(article)}})),
            ("txt", facts["caption"].encode()),
        ]
        offset, size = shard.add(meta["key"], members)
        row = {name: meta[name] for name in ("key", "sha256", "patient", "adapter", "source", "license")}
        place = {"split": split, "shard": shard.path.name, "offset": offset, "size": size}
        return {**row, **place, "modality": None, NUM_VIEWS: 1}

    def _close(self, split: str) -> None:
        if self._shard is None:
            return
        (shard, self._shard), num_samples = (self._shard, None), self._shard.num_samples
        sha256, size = shard.close()
        self.shards.append(
            {"name": shard.path.name, "split": split, "samples": num_samples, "bytes": size, "sha256": sha256}
        )

    def _reject_all(self, package: Package, result: ReadPackage) -> None:
        for reject in result.rejects:
            self._reject(package, reject.figure, reject.sha256, reject.problem)

    def _reject(self, package: Package, figure: str, sha256: str, problem: Problem) -> None:
        row = {
            "row": package.number,
            "sha256": sha256,
            "reason": str(problem.reason),
            "message": f"{': '.join(filter(None, (package.name, figure)))}: {problem.sentence}",
            "modality": None,
            "adapter": GENERIC,
            "source": self.form.source,
        }
        self.rejects.append(row)

    def _write_index(self, num_packages: int) -> None:
        patients: dict[str, set[str]] = {}
        splits: dict[str, set[str]] = {}
        for sample in self.samples:
            patients.setdefault(sample["split"], set()).add(sample["patient"])
            splits.setdefault(sample["sha256"], set()).add(sample["split"])
        licenses = Counter(article["license"] or "(none stated)" for article in self.articles)
        report = {
            "num_packages": num_packages,
            "num_articles": len(self.articles),
            "num_samples": len(self.samples),
            "num_with_context": self.num_with_context,
            "num_without_license": sum(not article["license"] for article in self.articles),
            "articles_by_license": dict(sorted(licenses.items())),
            "counts_by_license_class": dict(sorted(self.classes.items())),
            "num_of_other_licenses": sum(row["message"].endswith(NOT_KEPT) for row in self.rejects),
        }
        write_index(
            self.folder,
            self.samples,
            self.rejects,
            shards=self.shards,
            counts={
                "samples": len(self.samples),
                "by_split": counts_of(self.samples, "split"),
                "by_modality": counts_of(self.samples, "modality"),
                "by_reason": counts_of(self.rejects, "reason"),
                "patients_by_split": {name: len(patients[name]) for name in sorted(patients)},
                "duplicates_across_splits": sum(len(splits[sample["sha256"]]) > 1 for sample in self.samples),
                ARTICLE: report,
            },
            preprocessing={GENERIC: preprocessing()},
            options={"splits": dict(self.form.splits), "seed": self.form.seed, "articles": self.form.identity},
            columns=[],
        )


def _file_name(accession: str) -> str:
    """Return an accession number as the name of a member; one that is none gets a hash, so that no two are alike."""
    if _NAME.fullmatch(accession):
        return accession
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", accession)[:40]
    return f"{plain}-{hashlib.sha256(accession.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
