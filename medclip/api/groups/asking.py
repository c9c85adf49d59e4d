"""Options that verbs share on models: which one, what it is asked, what it learns from, how sure a figure is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.api.groups.reading import by_key
from medclip.options import argument, option, options
from medclip.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from medclip.files.key_value import Overrides
    from medclip.models.model import Model
    from medclip.retrieval.question import Example
    from medclip.text.vocabulary.own_words import Asked
    from medclip.text.vocabulary.task import Task


@options
class Pack:
    """Which pack a call is about."""

    model: str | Path | Model = argument(
        "Name or folder of a model pack. In Python also a loaded model.",
        default=DEFAULT_MODEL,
        form="PACK",
        kind=str,
        place=True,
    )


@options
class WithModel:
    """Which model is asked."""

    model: str | Path | Model = option(
        "Name or folder of a model pack. In Python also a loaded model.",
        default=DEFAULT_MODEL,
        form="PACK",
        kind=str,
        often=True,
        place=True,
    )


@options
class NamedPack:
    """What a new pack is called."""

    name: str | None = option("Name on the card of the new pack.", default=None, often=True)


@options
class OwnWords:
    """What is asked of a model in one's own words."""

    heading = "What is asked"

    prompt: Asked = option(
        'What to score in your own words; "TEXT | TEXT" are ways to say one thing. In Python a text, several (each a '
        "class of its own), or a mapping of names to texts; the tables have by how much the answer changes with the "
        "wording.",
        default=(),
        form="TEXT",
        often=True,
    )
    against: Asked = option(
        "What each prompt is compared with, in their order or by name; 'others' for the other findings of the image's "
        "modality. Default: 'no TEXT'.",
        default=(),
        form="TEXT",
    )


@options
class NamedTasks:
    """Which tasks of the vocabulary are asked."""

    heading = "What is asked"

    task: str | Sequence[str] = option(
        "Task to score. Default: those of the pack's card that fit each study.", default=(), form="NAME", often=True
    )


@options
class Questions(OwnWords, NamedTasks):
    """What is asked of a model."""


@options
class TeacherTexts:
    """What teachers are asked of samples that have no words."""

    texts: str | Path | None = option(
        "Text file of sentences, one a line (.txt), or a table with a column `caption`: captions of samples without "
        "words are drawn of them.",
        default=None,
        form="FILE",
        place=True,
    )

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences; none where no file is named."""
        from medclip.retrieval.caption_ranking import read_captions

        return () if self.texts is None else tuple(filter(None, read_captions(self.texts)))


@options
class Templates:
    """How prompts are phrased."""

    heading = "What is asked"

    templates: bool = option(
        "Put prompts that but name a finding, in three words or fewer, into the sentences of the study's modality, "
        "such as 'an X-ray image with {}'.",
        default=True,
    )


@options
class Ranked:
    """What is ranked by an example, and how many places are returned."""

    like: Example | Sequence[Example] | None = option(
        "Example: a file, its number in the folder of embeddings, or a patch as KEY@TOP,LEFT in µm. One that is in the "
        "folder (by the hash of its bytes) is not read again. The vectors of several are averaged.",
        default=None,
        form="FILE|N",
        kind=str,
        often=True,
        heading="What is looked for",
    )
    num_hits: int = option("Number of hits.", default=50, least=1, often=True, heading="Output")
    out: str | Path | None = option(
        "Table of the hits to write, as .parquet or .csv.",
        default=None,
        form="FILE",
        often=True,
        of_call=True,
        place=True,
        heading="Output",
    )


@options
class LabelledTable:
    """A table of labelled files."""

    labels: Any = argument(
        "Table of labelled files: CSV, TSV or Parquet, whatever its suffix, with `file`, a column of patients and the "
        "labels. A column `split` stands. In Python also a data frame.",
        kind=Path,
        named=True,
        place=True,
    )
    label: str | Sequence[str] = argument(
        "Column of class names, or one of 0 and 1 for each of several findings.", form="COLUMN", named=True
    )


@options
class TableTask:
    """What the labels of a table mean."""

    heading = "Table and patients"

    task: Task | str | Path | None = option(
        "Task of the vocabulary, or a task file of your own. Default: made of the table.",
        default=None,
        form="NAME|FILE",
        kind=str,
    )


@options
class LabelOrder:
    """The order of the values of a column of labels."""

    heading = "Table and patients"

    order: str | Sequence[str] = option(
        "Values of the column of labels, steps of a scale, from the lowest to the highest and with commas between "
        "them: A,B,C,D. What measures steps is then measured, and the ways of adapting that learn steps can be taken.",
        default=(),
        form="VALUES",
    )


@options
class TestShare:
    """How many patients are only measured."""

    heading = "Table and patients"

    test_share: float = option(
        "Share of patients to test on, where the table has no column `split`.", default=0.2, least=0, most=1, form="X"
    )


@options
class Overridden:
    """What is learned otherwise than by default."""

    heading = "How it learns"

    overrides: Overrides = option(
        "Settings to change: --set steps=200. In Python a mapping, or texts such as `steps=200`.",
        default=(),
        form="KEY=VALUE",
        often=True,
        word="set",
        read=partial(by_key, "--set"),
    )


@options
class Chance:
    """What is drawn at random."""

    seed: int = option("Seed of all chance: the same number draws the same.", default=0, least=0)


@options
class Resamples:
    """How sure a figure is."""

    num_resamples: int = option("Number of resamples of patients.", default=2000, least=1)
