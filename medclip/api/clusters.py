"""The verbs `pairs.cluster` and `pairs.label`: images are grouped, groups are labelled, images have their labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.asking import Chance, WithModel
from medclip.api.groups.reading import Limits, TextTables
from medclip.api.groups.running import Device, Overwriting, Recipe, Told, settings_of
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.pairs.concepts.cluster_labels import ClusterLabels
    from medclip.pairs.concepts.image_clusters import Clusters


@options
class ClusterOptions(Told, Limits, Recipe, TextTables, WithModel, Device, Chance):
    """What `pairs.cluster` is asked."""

    pairs: str | Path = argument(
        "Folder of shards, whose images of all splits are clustered; or a table with the column file.", place=True
    )
    out: str | Path = argument(
        "Folder to write; one that holds something else is refused. It gets the assignments, a page and labels.csv.",
        form="DIR",
        named=True,
        place=True,
    )
    num_clusters: int = option("Number of clusters.", default=2000, least=1, often=True, word="clusters", form="K")
    num_components: int = option("Number of components that vectors are reduced to.", default=45, least=1)


@verb(ClusterOptions)
def cluster(options: ClusterOptions) -> Clusters:
    """Group images by what a pack makes of them, into more clusters than there are things to tell apart.

    The page shows up to 20 images of each cluster, drawn at random; whoever knows what they show fills in labels.csv,
    and `medclip pairs label` hands each image the labels of its cluster.

    Returns:
        The clusters: their sizes, and what they were made of.

    Raises:
        MedclipError: OUTPUT_IN_USE; WRONG_USE for more clusters than images; what reading shards and packs raises.

    Example:
        >>> import medclip
        >>> medclip.pairs.cluster("figures", "clusters", num_clusters=200).sizes  # doctest: +SKIP
    """
    from medclip.files.tables.table import TextForm
    from medclip.pairs.pile import need_table, read_pile
    from medclip.progress import Silent

    progress = options.progress or Silent()
    form, settings = TextForm(options.encoding), settings_of(options)
    need_table([options.pairs], form)
    pile = read_pile(options.pairs, form=form, settings=settings, progress=progress)  # a wrong path needs no torch
    from medclip.models.packs.pack import load_model
    from medclip.pairs.concepts.image_clusters import cluster_images
    from medclip.reports.clusters import render_clusters

    return cluster_images(
        pile,
        Path(options.out),
        load_model(options.model, device=options.device),
        num_clusters=options.num_clusters,
        components=options.num_components,
        seed=options.seed,
        render=render_clusters,
        progress=progress,
    )


@options
class LabelOptions(Told, Limits, Recipe, Chance, Overwriting):
    """What `pairs.label` is asked."""

    clusters: str | Path = argument("Folder that medclip pairs cluster wrote.", place=True, present="folder")
    labels: Any = argument(
        "Table with the column cluster, and panel_type, panel_subtype, primary and secondary; several terms of a cell "
        "are separated by semicolons. In Python also a data frame.",
        kind=Path,
        named=True,
        place=True,
    )
    out: str | Path = argument("Parquet file to write: the labels of each image.", form="FILE", named=True, place=True)
    taxonomy: str | Path | None = option(
        "YAML file of the terms of each kind. Default: those of BIOMEDICA.", default=None, form="FILE", place=True
    )
    sample: int | None = option(
        "Number of images of each cluster to check, in a table beside the labels.", default=None, least=1, often=True
    )
    checked: str | Path | None = option(
        "Table of drawn images whose column `right` is filled in with yes or no, of which the precision is counted.",
        default=None,
        form="TABLE",
        often=True,
        place=True,
    )


@verb(LabelOptions)
def label(options: LabelOptions) -> ClusterLabels:
    """Hand each image the labels of its cluster; draw some to check, and measure how often each label is right.

    Returns:
        Counts by term; with a checked table the precision of each label with Wilson's interval of 95 %.

    Raises:
        MedclipError: MISSING_FILE; OUTPUT_IN_USE; TABLE_INVALID for a cluster or a term that there is not.

    Example:
        >>> import medclip
        >>> medclip.pairs.label("clusters", "labels.csv", "labels.parquet").num_labelled  # doctest: +SKIP
    """
    from medclip.pairs.concepts.cluster_labels import label_images

    return label_images(
        Path(options.clusters),
        options.labels,
        Path(options.out),
        taxonomy=None if options.taxonomy is None else Path(options.taxonomy),
        num_drawn=options.sample,
        checked=None if options.checked is None else Path(options.checked),
        seed=options.seed,
        overwrite=options.overwrite,
    )
