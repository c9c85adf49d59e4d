"""The verb `pairs.from_articles`: packages of articles go in, their figures come out as shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Chance
from medclip.api.groups.reading import Identity, Limits, StoredImages
from medclip.api.groups.running import Machine, Recipe, Told, settings_of
from medclip.options import argument, option, options
from medclip.pairs.sources.articles.licenses import LICENSE_CLASSES
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.sources.articles.from_articles import ArticlesReport


@options
class FromArticlesOptions(Told, Limits, Recipe, StoredImages, Chance, Identity, Machine):
    """What `pairs.from_articles` is asked."""

    path: str | Path = argument(
        "Folder with packages of articles (.tar.gz, or folders with one JATS XML file and its figures), one package, "
        "or a list as PMC publishes it: a table with File and, where it has them, Citation, Accession_ID, Date, "
        "License and PMID, whose files lie relative to it.",
        place=True,
        present="file or folder",
    )
    out: str | Path = argument(
        "Folder to write; one that holds something else is refused. Until it is there, what was read is kept beside "
        "it, in a folder whose name ends in .unfinished.",
        form="DIR",
        named=True,
        place=True,
    )
    license: str | Sequence[str] = option(
        "Class of licences that is kept: commercial use allowed (CC0, CC BY, SA and ND), non-commercial (those with "
        "NC), or other, which are also the articles that state none. Default: all.",
        default=(),
        form="CLASS",
        kind=str,
        choices=LICENSE_CLASSES,
        often=True,
    )
    source: str = option("Name of the set.", default="articles", form="NAME", often=True)
    splits: str | Sequence[str] | Mapping[str, float] = option(
        "Shares of the articles that come to each split. Default: train=0.7,val=0.1,test=0.2. In Python also a "
        "mapping.",
        default=(),
        form="NAME=SHARE,...",
        kind=str,
        often=True,
    )


@verb(FromArticlesOptions)
def from_articles(options: FromArticlesOptions) -> ArticlesReport:
    """Turn the figures of open-access articles into shards: image, caption, and the paragraphs that cite it.

    No split cuts an article. Every figure ends in one row, a sample or a row of rejects.parquet with its reason, and so
    does every package that cannot be read. The same call goes on after a stop, and ends in the same bytes.

    Returns:
        Counts of packages, articles, samples, licences and rejects.

    Raises:
        MedclipError: OUTPUT_IN_USE, MISSING_FILE, TABLE_INVALID, WRONG_USE, DISK_FULL, BUSY; NOTHING_TO_DO where there
            is no package, or no figure could be used.

    Example:
        >>> import medclip
        >>> medclip.pairs.from_articles("oa_package", "figures", license="commercial").num_samples  # doctest: +SKIP
    """
    from medclip.api.run_arguments import path_of
    from medclip.files.pseudonyms import load_key
    from medclip.pairs.sources.articles.from_articles import ArticlesForm, shards_from_articles
    from medclip.pairs.sources.articles.read_package import ReadForm
    from medclip.progress import Silent
    from medclip.shards.writing.splits import read_shares

    settings = settings_of(options)
    kept = (options.license,) if isinstance(options.license, str) else tuple(options.license)
    form = ArticlesForm(
        load_key(settings, path=None if options.key_file is None else Path(options.key_file)),
        ReadForm(
            options.max_side_px,
            "jpeg" if options.image_format == "jpeg" else "png",
            options.quality,
            kept or LICENSE_CLASSES,
        ),
        options.samples_per_shard,
        read_shares(options.splits),
        options.seed,
        options.source,
    )
    out = path_of(options.out, "the output folder")
    return shards_from_articles(Path(options.path), out, form, settings, options.progress or Silent())
