"""The verbs of captions: tables of labels become tables with captions, and sentences are ranked for an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups import Chance, ImageRoot, Limits, NamedModality, Overwriting, Ranked, Recipe, Told, settings_of
from medclip.options import argument, needs, option, options, verb
from medclip.progress import Silent

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model
    from medclip.retrieval.caption_ranking import CaptionRanking
    from medclip.shards.writing.captions import CaptionsForm, CaptionsReport
    from medclip.shards.writing.ecg_captions import EcgCaptions
    from medclip.shards.writing.mammography_captions import MammographyCaptions
    from medclip.text.captions.caption_writer import CaptionWriter


@options
class WrittenCaptions:
    """Which table becomes one with captions."""

    table: str | Path = argument("Table to read: CSV, TSV or Parquet, whatever its suffix.", place=True)
    out: str | Path = argument(
        "Table to write, whose suffix says how: .csv, .tsv, .parquet or .pq.", form="FILE", named=True, place=True
    )


@options
class AskedWriter:
    """Who writes captions."""

    writer: str | CaptionWriter | None = option(
        "Function of yours that writes captions from facts, such as one that asks a language model. It is asked once "
        "for all rows with the same facts; what fails the check of captions is replaced by a wording of medclip's own "
        "and counted. In Python also the function itself.",
        default=None,
        form="MODULE:FUNCTION",
        kind=str,
    )


@options
class KnownSet:
    """Whose table is read."""

    dataset: str | None = option(
        "Name of the set. Default: told from the columns.", default=None, form="NAME", often=True
    )
    file: str | None = option(
        'Where a file lies, by columns of the table: "{study_id}/{image_id}.png". Default: as the set is published.',
        default=None,
        form="PLACE",
        often=True,
    )


@options
class LabelCaptionsOptions(Told, Recipe, WrittenCaptions, AskedWriter, Chance, ImageRoot, Overwriting):
    """What `captions_from_labels` is asked."""

    num_captions: int = option("Number of captions for each row.", default=10, least=1, often=True)


@verb(LabelCaptionsOptions)
def captions_from_labels(options: LabelCaptionsOptions) -> CaptionsReport:
    """Write captions that say what the labels of each row say, as a column of a copy of the table.

    The table is one with label columns, as `medclip shards build` reads it.
    The captions stand in the column `captions`: one per line of the cell in CSV and TSV, a list of strings in Parquet.
    Texts that the column held stay in front of them. All other columns, and the order of the rows, are as they were;
    only where the new table lies in another folder, relative paths in `file` are rewritten so that they are relative to
    it. A column that names the patient is not needed. The captions of a row depend on the seed, its file, modality,
    view and labels, and on nothing else in the table.

    Returns:
        Counts.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from the table; OUTPUT_IN_USE; WRONG_USE for an output that is the
            table itself or where nothing can be written, or a writer whose first call fails (later failures are
            counted); DISK_FULL, PERMISSION_DENIED.
    """
    from medclip.shards.writing.captions import write_captions

    form = _form(options, options.num_captions, options.writer)
    return write_captions(Path(options.table), form, options.progress or Silent())


@options
class MammographyCaptionsOptions(Told, Recipe, WrittenCaptions, KnownSet, AskedWriter, Chance, ImageRoot, Overwriting):
    """What `captions_from_mammography` is asked."""

    findings: str | Path | None = option(
        "Second table with one row a finding (EMBED).", default=None, form="TABLE", place=True
    )
    num_captions: int = option("Number of reports for each image.", default=10, least=1, often=True)


@verb(MammographyCaptionsOptions)
def captions_from_mammography(options: MammographyCaptionsOptions) -> MammographyCaptions:
    """Write a table of mammograms with their labels, and reports that say what the set's table states of each breast.

    The set's own table is read: the annotations of VinDr-Mammo, RSNA, CBIS-DDSM, DDSM, CDD-CESM, EMBED or INbreast, or
    a table of your own. What is written is one for `medclip shards build`, with one row an image. Reports stand in the
    column `captions`, behind the texts that a table of your own had there; what a radiologist wrote in `report`. They
    speak of the side of the image only, deny what was looked for and is not there, and state nothing that the table
    does not. Those of a row depend on the seed and on what is stated of it, and on nothing else. No image is opened.

    Returns:
        Counts, and what to know of the set.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from a table, with the row; WRONG_USE for a set, a place of images
            or an output that cannot be; OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    from medclip.shards.writing.mammography_captions import write_mammography_captions

    return write_mammography_captions(
        Path(options.table),
        _form(options, options.num_captions, options.writer),
        options.progress or Silent(),
        dataset=options.dataset,
        findings=None if options.findings is None else Path(options.findings),
        file=options.file,
    )


@options
class EcgCaptionsOptions(Told, Recipe, WrittenCaptions, KnownSet, Chance, ImageRoot, Overwriting):
    """What `captions_from_ecg` is asked."""

    num_captions: int = option("Number of reports written for each record that has codes.", default=3, least=1)
    language: str = option("Language of the written reports.", default="en", choices=("en", "de"))
    min_likelihood: float = option(
        "Likelihood, of 100, below which diagnoses of PTB-XL count as absent. With 0 every listed statement is "
        "present, whatever its likelihood: the rule of the benchmark.",
        default=0.0,
        least=0,
        most=100,
    )


@verb(EcgCaptionsOptions)
def captions_from_ecg(options: EcgCaptionsOptions) -> EcgCaptions:
    """Write a table of ECG records with labels of the six ECG tasks, their cleaned reports, and reports of their codes.

    The set's own table is read: of PTB-XL (whole, or its filtered part), MIMIC-IV-ECG, CPSC2018 or Chapman-Shaoxing.
    What is written is one for `medclip shards build`, with one row a record. Texts stand in the column `captions`:
    those that the table had there, the set's own report (in lower case, without the cart, the editor's labels and
    whoever confirmed it), then those written of the SCP-ECG codes. A report that says nothing of the record is left out
    and counted. What nobody looked for has no label. No record is opened.

    Returns:
        Counts, and what to know of the set.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from the table, with the row; WRONG_USE for a set, a place of
            records or an output that cannot be; OUTPUT_IN_USE, DISK_FULL, PERMISSION_DENIED.
    """
    from medclip.shards.writing.ecg_captions import write_ecg_captions

    return write_ecg_captions(
        Path(options.table),
        _form(options, options.num_captions, None),
        options.progress or Silent(),
        dataset=options.dataset,
        file=options.file,
        language=options.language,
        min_likelihood=options.min_likelihood,
    )


def _form(options: Any, num_captions: int, writer: Any) -> CaptionsForm:
    from medclip.shards.writing.captions import CaptionsForm
    from medclip.text.captions.caption_writer import load_writer

    return CaptionsForm(
        Path(options.out),
        num_captions,
        options.seed,
        load_writer(writer) if isinstance(writer, str) else writer,
        None if options.images is None else Path(options.images),
        options.overwrite,
    )


@options
class RankCaptionsOptions(Told, Limits, Recipe, Ranked, NamedModality, Overwriting):
    """What `rank_captions` is asked."""

    captions: Any = argument(
        "Captions to rank: a text file with one a line, or a table with a column `caption`. In Python also a list.",
        kind=Path,
        place=True,
    )
    embeddings: str | Path | Embeddings | None = option(
        "Folder that medclip embed wrote, which the example may be in; then its vector is taken from there.",
        default=None,
        form="DIR",
        place=True,
    )
    model: str | Path | Model | None = option(
        "Name or folder of a model pack. In Python also a loaded model. Default: the pack of the embeddings, or "
        "medclip-mini.",
        default=None,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )

    rules = (
        needs(
            "captions",
            "like",
            "captions are ranked for an image, and by nothing else.",
            hint="Name the image: --like FILE.",
        ),
    )


@verb(RankCaptionsOptions)
def rank_captions(options: RankCaptionsOptions) -> CaptionRanking:
    """Rank captions by how well they fit an image.

    Returns:
        The captions in their order, each with its cosine: `.hits`, `.table`, `.to_pandas()`.

    Raises:
        MedclipError: WRONG_USE for no image, embeddings of slides, and a pack that is image only; NOTHING_TO_DO for no
            caption; what reading the image raises.

    Example:
        >>> import medclip
        >>> medclip.rank_captions(["a chest X-ray", "a mammogram"], like="film.dcm")  # doctest: +SKIP
    """
    from medclip.embeddings.open_embeddings import open_embeddings
    from medclip.errors import MedclipError, Reason
    from medclip.retrieval.caption_ranking import rank_captions, read_captions
    from medclip.retrieval.hits import claim_hits, write_hits
    from medclip.retrieval.question import loader, read_examples
    from medclip.slides.store.slide_store import is_slide_store

    claim_hits(options.out, overwrite=options.overwrite)
    texts, folder = read_captions(options.captions), options.embeddings
    if isinstance(folder, (str, Path)) and is_slide_store(folder):
        raise MedclipError(Reason.WRONG_USE, "captions are ranked for an image; leave the slides out.")
    opened = None if folder is None else open_embeddings(folder)
    ranking = rank_captions(
        texts,
        read_examples(options.like),
        loader(opened, options.model, has_words=True),
        embeddings=opened,
        num_hits=options.num_hits,
        modality=None if options.modality is None else str(options.modality),
        settings=settings_of(options),
        progress=options.progress,
    )
    if options.out is not None:
        write_hits(Path(options.out), ranking.table)
    return ranking
