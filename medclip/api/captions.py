"""The verbs of captions: tables of labels become tables with captions, and sentences are ranked for an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance, Ranked
from medclip.api.groups.reading import AnyModality, ImageRoot, Limits
from medclip.api.groups.running import Overwriting, Recipe, Told, settings_of
from medclip.options import argument, excludes, needs, option, options
from medclip.pairs.sources.caption_sources import CAPTION_SOURCES, sources_with
from medclip.progress import Silent
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.models.model import Model
    from medclip.pairs.sources.captioned_table import CaptionsReport
    from medclip.pairs.words.caption_writer import CaptionWriter
    from medclip.retrieval.caption_ranking import CaptionRanking


def _takes_no(option: str) -> property:
    """Make a property of the options: whether the source is one that does not take this one."""
    return property(lambda options: option not in CAPTION_SOURCES[options.from_].options)


@options
class OfSomeSources:
    """Options that not every source of captions takes: which do, their rows say."""

    heading = "Of some sources"

    dataset: str | None = option(
        "Name of the set. Default: told from the columns.", default=None, form="NAME", often=True
    )
    file: str | None = option(
        'Where a file lies, by columns of the table: "{study_id}/{image_id}.png". Default: as the set is published.',
        default=None,
        form="PLACE",
        often=True,
    )
    findings: str | Path | None = option(
        "Second table with one row a finding (EMBED).", default=None, form="TABLE", place=True
    )
    writer: str | CaptionWriter | None = option(
        "Function of yours that writes captions from facts, such as one that asks a language model. It is asked once "
        "for all rows with the same facts; what fails the check of captions is replaced by a wording of medclip's own "
        "and counted. In Python also the function itself.",
        default=None,
        form="MODULE:FUNCTION",
        kind=str,
    )
    language: str = option("Language of the reports that are written of ECG codes.", default="en", choices=("en", "de"))
    min_likelihood: float = option(
        "Likelihood, of 100, below which diagnoses of PTB-XL count as absent. With 0 every listed statement is "
        "present, whatever its likelihood: the rule of the benchmark.",
        default=0.0,
        least=0,
        most=100,
    )

    takes_no_dataset = _takes_no("dataset")
    takes_no_file = _takes_no("file")
    takes_no_findings = _takes_no("findings")
    takes_no_writer = _takes_no("writer")
    takes_no_language = _takes_no("language")
    takes_no_min_likelihood = _takes_no("min_likelihood")

    rules = tuple(
        excludes(
            name, f"takes_no_{name}", f"{{names}} is an option of --from {sources_with(name)}.", hint="Leave it out."
        )
        for name in ("dataset", "file", "findings", "writer", "language", "min_likelihood")
    )


@options
class CaptionsOptions(Told, Recipe, OfSomeSources, Chance, ImageRoot, Overwriting):
    """What `captions` is asked."""

    table: str | Path = argument("Table to read: CSV, TSV or Parquet, whatever its suffix.", place=True)
    out: str | Path = argument(
        "Table to write, whose suffix says how: .csv, .tsv, .parquet or .pq.", form="FILE", named=True, place=True
    )
    from_: str = option(
        f"Source of the captions. {'; '.join(f'{name}: {row.about}' for name, row in CAPTION_SOURCES.items())}.",
        choices=CAPTION_SOURCES,
        form="SOURCE",
        often=True,
    )
    num_captions: int | None = option(
        "Number of captions for each row; of ECGs for each record that has codes. Default: "
        f"{', '.join(f'{row.num_captions} from {name}' for name, row in CAPTION_SOURCES.items())}.",
        default=None,
        least=1,
        often=True,
    )


@verb(CaptionsOptions)
def captions(options: CaptionsOptions) -> CaptionsReport:
    """Write a table of image-text pairs for `medclip shards build`, of a table of images and what is known of each.

    From labels, it is a copy of the table with captions that say what the labels of each row say; other columns stay.
    From mammography or ecg, the set's own table is read, and one with labels is written: a row an image, or a record;
    reports say what the table states of each breast, and the set's own reports of ECGs are cleaned. Texts stand in the
    column `captions`, one per line of the cell in CSV and TSV, a list of strings in Parquet, behind those that the
    table had. Those of a row depend on the seed and on what is stated of it, and on nothing else in the table. No image
    is opened, and no column needs to name the patient.

    Returns:
        Counts, and of a set what to know of it.

    Raises:
        MedclipError: TABLE_INVALID or MISSING_FILE from a table, with the row; OUTPUT_IN_USE; WRONG_USE for a set or a
            place of files that cannot be, an option of another source, an output that is the table itself or where
            nothing can be written, or a writer whose first call fails (later failures are counted); DISK_FULL,
            PERMISSION_DENIED.

    Example:
        >>> import medclip
        >>> medclip.pairs.captions("labels.csv", "captions.csv", from_="labels").num_captions  # doctest: +SKIP
    """
    from medclip.pairs.sources.captioned_table import CaptionsForm, write_captions
    from medclip.pairs.words.caption_writer import load_writer

    row = CAPTION_SOURCES[options.from_]
    values = {name: getattr(options, name) for name in row.options}
    if isinstance(values.get("writer"), str):
        values["writer"] = load_writer(values["writer"])
    form = CaptionsForm(
        Path(options.out),
        options.num_captions or row.num_captions,
        options.seed,
        None if options.images is None else Path(options.images),
        options.overwrite,
    )
    return write_captions(options.from_, Path(options.table), form, options.progress or Silent(), values)


@options
class RankCaptionsOptions(Told, Limits, Recipe, Ranked, AnyModality, Overwriting):
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
    from medclip.slides.slide_store import is_slide_store

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
