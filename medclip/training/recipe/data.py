"""`data` and `text`: where samples come from, how they are read, and the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from medclip.errors import MedclipError, Reason
from medclip.files.stores import place_of
from medclip.shards.folder import read_index
from medclip.shards.reading.reinforced import REINFORCED, ReinforcedShards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.reading.shard_cache import DEFAULT_GB, ShardCache
from medclip.shards.reading.shard_files import Verify
from medclip.shards.selection import Selection, joined, read_selection
from medclip.training.batches.order import SAMPLING
from medclip.training.recipe.section import Section, Share
from medclip.wording import list_of


class Text(Section):
    """The tokenizer."""

    tokenizer: Path | None = None
    """Folder of a tokenizer; trained on the captions where None."""
    vocab_size: int = Field(default=4096, ge=300)
    context_length: int = Field(default=48, ge=4)
    captions_per_sample: int = Field(default=4, ge=0)
    """Captions drawn of each training sample to train the tokenizer on, beside all wordings of the vocabularies."""


class Candidates(Section):
    """Which of the captions of a sample is drawn, in shards of `medclip pairs rewrite`: one by its weight, anew in each
    epoch. It is a function of seed, epoch and sample alone.
    """

    p_raw: Share = 0.0
    """Probability of the raw text beside rewritten ones (HQ-CLIP; 0.25 is what our specification proposes). It needs
    shards that keep raw texts, see `captions: {keep_raw: true}` of `medclip pairs rewrite`. Where a raw text is drawn,
    no hard negative is: those were made of the rewritten one."""
    p_syn: Share = 0.5
    """Most of the probability that the caption of a language model has, where there are others."""


Decode = Literal["full", "auto", "scaled"]


def _policy(name: str) -> str:
    if name not in SAMPLING:
        raise PydanticKnownError("literal_error", {"expected": list_of([repr(one) for one in SAMPLING], "or")})
    return name


class Data(Section):
    """Where samples come from."""

    shards: tuple[str, ...] = Field(min_length=1)
    """Folders made by `medclip shards build` or `medclip shards index`, here or as URLs in a store (s3://, https://,
    http://); one may stand without brackets."""
    selection: tuple[Path, ...] = ()
    """Files of `medclip pairs select`, one for each folder of shards, whose pairs of the training split are trained on;
    all where there are none. One may stand without brackets. Weights of the selection multiply those of the loss."""
    selected: str | None = None
    """Hash of what the selection keeps of the training split. It is filled in as the recipe is read; where it stands
    there, another selection is refused."""
    reinforced: tuple[str, ...] = ()
    """Folders of `medclip pairs reinforce`, one for each folder of shards, in their order: stored augmentations,
    captions and teachers' vectors for `objective.losses.distill`. One may stand without brackets."""
    train_split: str = "train"
    val_split: str | None = "val"
    """None trains without validation."""
    test_split: str | None = "test"
    """Measured once, after the last step, for the pack's card; None measures nothing. Shards without a split of that
    name are trained on all the same, unless the recipe names it."""
    policy: Annotated[str, AfterValidator(_policy)] = "shard_mixed"
    """What makes a batch: samples of neighbouring shards; sources by size times weight; one modality at a time; or
    sources by `source_power` of their size, each with its strata (the table's column `stratum`) alike."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weight by source for `proportional` and `balanced`; 1 where a source is not named."""
    source_power: Share = 0.5
    """For `balanced`: 1 draws sources by their size, 0 each as often as the others."""
    max_repeats: float = Field(default=4.0, ge=1)
    """For `balanced`: a stratum is drawn at most so many times its size in an epoch."""
    together: int = Field(default=1, ge=1)
    """For `balanced`: samples of one source that stand side by side in a batch. At 16 a batch of 64 is of about four
    sources, and most of what it contrasts differs in what is found, not in where it is from."""
    num_repeats: int = Field(default=1, ge=1)
    """Times that each sample stands in its batch, side by side and changed anew each time; it is decoded once
    (repeated sampling of VideoMAE V2, which has 4). An epoch has as many times more steps. For objectives without
    words: copies of one image are no negatives of each other."""
    window_shards: int = Field(default=64, ge=1)
    """Shards among which samples are mixed; as many stay open."""
    cache_mb: int = Field(default=1024, ge=0)
    """Ceiling of the decoded images kept in memory, as uint8 (150 KB each at 224 px), in each process."""
    workers: int = Field(default=2, ge=1)
    """Threads or processes that decode and augment, for each rank. Does not change any number."""
    worker_kind: Literal["thread", "process"] = "thread"
    """Processes where one Python is too slow to feed a GPU."""
    native_share: Share = 0.3
    """Share of captions that quote the record's own free text, where it has any."""
    native: Literal["sentences", "whole", "shuffled"] = "sentences"
    """Quote a sentence or two of a text, leaving out what the labels contradict; the text as it stands; or the text
    with its sentences in a new order each time. Shards of others (`medclip shards index`) are always quoted whole."""
    report_share: Share = 0.5
    """Share of captions that quote the record's report, where it has one."""
    report_words: int = Field(default=60, ge=5)
    """Words of a report that are quoted at most; about 180 fill a context of 256 tokens."""
    candidates: Candidates | None = None
    """Draw one of the weighed captions that samples of rewritten shards have, as it stands; `native_share` and
    `report_share` are then for samples without any. None draws captions as of other shards."""
    num_negatives: int = Field(default=1, ge=1)
    """Hard negatives that are drawn of each sample's for a step, where a loss reads any."""
    negatives: Literal["stored", "labels"] = "stored"
    """Where hard negatives come from: the samples' own; or drawn beside each caption that states labels, in its form
    and with its polarity, of a class that the labels deny (`medclip.text.captions.false_captions`)."""
    tags: tuple[str, ...] = ()
    """Words that a loss which reads tags learns to tell, in this order."""
    max_val: int = Field(default=2000, ge=2)
    """Validation samples used, from the front."""
    max_test: int = Field(default=20_000, ge=2)
    """Test samples measured at most, spread evenly over the split."""
    max_bad_share: Share = 0.01
    """Share of samples that may be unreadable; they are left out and counted, more of them stop the run."""
    verify: Literal["full", "size", "none"] = "size"
    """How each shard is compared with its index when it is first opened; full reads it once from front to back, in each
    process: `medclip shards check` does it once."""
    decode: Decode = "auto"
    """How much of a JPEG is decoded for training: all pixels; a half or less where at least twice the wanted side is
    left ("auto", which no resampling shows); or already where just the wanted side is left ("scaled": 0.7 of the
    time for images of 512 px, a little less sharp). Validation is never "scaled"."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds without a batch after which the run stops and shows where its workers hang."""
    shard_cache: Path | None = None
    """Folder for shards of a store on a disk of each node; `cache/shards` in MEDCLIP_HOME where None."""
    shard_cache_gb: float = Field(default=DEFAULT_GB, gt=0)
    """Ceiling of that folder, of all runs together. Room for two windows of shards lets the next one come in time."""

    @model_validator(mode="after")
    def _check_test_split(self) -> Data:
        if self.test_split is not None and self.test_split in (self.train_split, self.val_split):
            raise ValueError(f"test_split {self.test_split!r} is trained or chosen on; name another one, or null")
        return self

    @model_validator(mode="after")
    def _check_balance(self) -> Data:
        unused = sorted({"source_power", "max_repeats", "together"} & self.model_fields_set)
        if unused and not SAMPLING[self.policy].takes_balance:
            taking = list_of([name for name, row in SAMPLING.items() if row.takes_balance], "or")
            raise ValueError(f"{unused[0]} does nothing with policy: {self.policy}; say policy: {taking}")
        return self

    @field_validator("shards", "selection", "reinforced", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        places = [] if value is None else [value] if isinstance(value, str | Path) else value
        return [str(p) if isinstance(p, Path) else p for p in places] if isinstance(places, list | tuple) else places

    @field_validator("shards")
    @classmethod
    def _without_secrets(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(place_of(place)) for place in places)
        except MedclipError as e:
            raise ValueError(f"{e.where}: {e.message} {e.hint}") from None

    def read_kept(self) -> Selection | None:
        """Read what the selection says of the training split; None where all of it is trained on.

        Raises:
            MedclipError: RECIPE_INVALID where the recipe states the hash of another one; as `read_selection`.
        """
        if not self.selection:
            return None
        kept = joined([read_selection(path) for path in self.selection]).rows_of_split(self.train_split)
        if self.selected not in (None, kept.digest):
            raise MedclipError(
                Reason.RECIPE_INVALID,
                f"data.selected is {self.selected}, and what data.selection keeps has the hash {kept.digest}.",
                where=self.selection[0],
                hint="Name the selection that the recipe was made with, or leave data.selected out.",
            )
        return kept

    def open_split(self, split: str, verify: Verify | None = None) -> ShardReader:
        """Open a split of the shards; of the training split what the selection keeps.

        Raises:
            MedclipError: As `ShardReader`; RECIPE_INVALID for reinforced shards, which hold no images.
        """
        selection = self.read_kept() if split == self.train_split else None
        reader = ShardReader(self.shards, split, verify=verify or self.verify, cache=self.cache, selection=selection)
        stored = [folder for folder in reader.folders if (read_index(folder).get("options") or {}).get(REINFORCED)]
        if stored:
            reader.close()
            raise MedclipError(
                Reason.RECIPE_INVALID,
                "data.shards names reinforced shards, which hold no images.",
                where=stored[0],
                hint="Name the shards of their images, and these in data.reinforced.",
            )
        return reader

    def open_reinforced(self, reader: ShardReader) -> ReinforcedShards | None:
        """Open what is stored beside the samples of the training split; None where the recipe names nothing.

        Args:
            reader: The training split.

        Raises:
            MedclipError: As `ReinforcedShards`.
        """
        if not self.reinforced:
            return None
        selection = self.read_kept()
        stored = ShardReader(self.reinforced, self.train_split, cache=self.cache, selection=selection)
        return ReinforcedShards(stored, reader)

    @property
    def cache(self) -> ShardCache:
        """The cache of shards of a store."""
        return ShardCache.at(self.shard_cache, self.shard_cache_gb)
