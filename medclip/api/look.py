"""The verb `pairs.look`: one page about a pile of pairs before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.api.groups.asking import Chance
from medclip.api.groups.reading import ImageRoot, Limits, TextTables
from medclip.api.groups.running import Device, Machine, Overwriting, Recipe, Told, settings_of
from medclip.options import argument, option, options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.models.model import Model
    from medclip.pairs.looking.pile_look import PileLook


@options
class LookOptions(Told, Limits, Recipe, ImageRoot, TextTables, Device, Machine, Chance, Overwriting):
    """What `pairs.look` is asked."""

    pairs: str | Path = argument(
        "Folder of shards, also of others (`medclip shards index`), here or in a store; or a table with the columns "
        "file and caption, and where known report, patient, modality, source, license, language and split.",
        place=True,
    )
    out: str | Path = argument(
        "Folder to write: the page look.html, look.json and tables; one that holds something else is refused.",
        form="DIR",
        named=True,
        place=True,
    )
    evaluation: str | Path | Sequence[str | Path] = option(
        "Shards or table that models are measured on; the page counts pairs that show its images or are of its "
        "patients.",
        default=(),
        form="SHARDS|TABLE",
        kind=str,
        often=True,
        place=True,
        word="against",
    )
    model: str | Path | Model | None = option(
        "Name or folder of a model pack, which compares images and texts and counts tokens. Default: none is asked. "
        "In Python also a loaded model.",
        default=None,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )
    split: str | None = option("Split that is looked at. Default: all of them.", default=None, form="NAME", often=True)
    metadata: str | Path = option(
        "Concepts that are counted: `built-in`, or a file that the step `balance` takes.",
        default="built-in",
        form="NAME|FILE",
        kind=str,
        place=True,
    )
    examples: int = option(
        "Number of the worst and of the best aligned pairs of each modality on the page; without a pack so many are "
        "drawn at random. 0 shows no single patient.",
        default=30,
        least=0,
        often=True,
    )
    thumbnails: bool = option("Show small images of the examples.", default=True)


@verb(LookOptions)
def look(options: LookOptions) -> PileLook:
    """Look at the pairs of shards or of a table: one page, what should trouble one first.

    Counts by modality, language, source, licence, split and length; faults of texts; sentences that many patients
    share; concepts that are affirmed and denied, and their tail; copies of images, and links to evaluation sets; with a
    pack how much nearer texts are to their own images than to others; examples.

    Returns:
        The figures; `.to_pandas()` are the counts, `.tables()` all tables.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE for pairs that cannot be read; WRONG_USE for a pack
            without words, and for an encoding or a folder of images beside shards alone; OUTPUT_IN_USE; NOTHING_TO_DO
            for a pile without a pair. An image that cannot be read is counted.

    Example:
        >>> import medclip
        >>> medclip.pairs.look("shards", "look", evaluation="test_shards").findings  # doctest: +SKIP
    """
    from functools import partial

    from medclip.files.stores import RemotePath, place_of
    from medclip.files.tables.table import TextForm
    from medclip.pairs.looking.look_at_pile import claim_look, look_at_pile
    from medclip.pairs.pile import need_table, read_pile
    from medclip.progress import Silent
    from medclip.reports.look import render_look

    settings, progress, form = settings_of(options), options.progress or Silent(), TextForm(options.encoding)
    named = options.evaluation
    against = [named] if isinstance(named, str | Path) else list(named)
    inputs = {"the pairs": options.pairs} | {f"evaluation set {n}": place for n, place in enumerate(against, 1)}
    places = {name: place_of(place) for name, place in inputs.items()}
    need_table(places.values(), form)
    local = {name: place for name, place in places.items() if not isinstance(place, RemotePath)}
    claim_look(Path(options.out), local, overwrite=options.overwrite)
    read = partial(read_pile, form=form, settings=settings, progress=progress)
    pile = read(options.pairs, split=options.split, images=None if options.images is None else Path(options.images))
    others = [read(place) for place in against]
    model = None
    if options.model is not None:
        from medclip.models.packs.pack import load_model

        model = load_model(options.model, device=options.device)
    return look_at_pile(
        pile,
        Path(options.out),
        others=others,
        model=model,
        metadata=str(options.metadata),
        num_examples=options.examples,
        thumbnails=options.thumbnails,
        seed=options.seed,
        settings=settings,
        render=render_look,
        progress=progress,
    )
