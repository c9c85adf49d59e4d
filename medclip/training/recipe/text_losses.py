"""Sections below `objective.losses` of the losses that read texts beside captions: see `medclip.training.losses`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medclip.training.recipe.section import Section, Share


class HardNegatives(Section):
    """`hard_negatives`: an image fits its caption better than a text that is plausible and false of it (HQ-CLIP)."""

    weight: float = Field(default=1.0, gt=0)
    form: Literal["pairwise", "row"] = "pairwise"
    """Each false text against the caption of its own image; or as one more column of the image's row in a second
    image-to-text term."""


class Tags(Section):
    """`tags`: a linear layer on what the image tower pools tells which words of `data.tags` are true, each by itself
    (HQ-CLIP). A word that is stated of an image is true, one that is denied is not, and of others nothing is known.

    `tags_softmax`: the stated words share the mass among all, so that every other word counts as less true.
    """

    weight: float = Field(default=1.0, gt=0)


class LongCaptions(Section):
    """`long_captions`: images are contrasted with their long texts, beside the captions (CLIP-IN's second branch)."""

    weight: float = Field(default=1.0, gt=0)


class Softened(Section):
    """`softened`: images and captions are contrasted with targets of which a share goes to other pairs of the batch,
    more to those that are alike (LightCLIP). It usually stands in the place of the plain term: `contrastive: 0`.
    """

    weight: float = Field(default=1.0, gt=0)
    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the others at the end of the run."""
    schedule: Literal["linear", "constant"] = "linear"
    """How the share grows: in a line from 0, or not at all."""
    similarity: float = Field(default=5.0, ge=0)
    """Factor of the cosines in the weights of the others; 0 weighs them alike (PyramidCLIP)."""


class DistilledCaptions(Section):
    """`distilled_captions`: captions get the feature that a frozen text tower gives them (stage 1 of CLIP-IN): one
    minus the cosine, and the mean square of differences of token states. The teacher is the tower that the run began
    with, its table of positions in place. A caption longer than its context is held to the mean of its windows, as
    below.
    """

    weight: float = Field(default=1.0, gt=0)
    tokens: float = Field(default=1.0, ge=0)
    """Weight of the token states, beside 1 of the features."""
    teacher: str | None = None
    """Pack, or anything else that `model.start` may be, whose text tower teaches; `model.start` where None."""


class DistilledLong(Section):
    """`distilled_long`: long texts get the mean of what a frozen text tower gives their windows, each of as many whole
    sentences as fit its context. Meant beside `distilled_captions`, once the tower follows it on short texts.
    """

    weight: float = Field(default=1.0, gt=0)
    teacher: str | None = None
    """As of `distilled_captions`."""


class EditPairs(Section):
    """`edit_pairs`: of two samples that differ by one edit, each image fits its own text better than its partner's, and
    each text its own image (CLIP-IN). Partners stand in one batch wherever there is room.
    """

    weight: float = Field(default=1.0, gt=0)


class TokenAlignment(Section):
    """`token_alignment`: images are contrasted with captions by the similarity of their matched tokens: patches or
    places of the last map with words that are no stop words (LightCLIP). Two linear heads and a scale learn with the
    run and stay behind.
    """

    weight: float = Field(default=0.5, gt=0)
    mode: Literal["relaxed", "hungarian", "filip"] = "relaxed"
    """How tokens are matched: `medclip.objectives.token_alignment.match_tokens`."""
    cap: int = Field(default=3, ge=1)
    """Most patches of a word in the relaxed matching."""
    hardest: int | None = Field(default=None, ge=1)
    """Others that each image and each text is compared with, the most alike by their features; all where None."""
    patches: int = Field(default=32, ge=1)
    """Patches of an image that take part: those of the largest norm."""


class MaskedWords(Section):
    """`masked_words`: words of the caption are masked and guessed by the text tower, which gets the image's feature at
    some of its layers and sees the caption both ways for it (LightCLIP). Findings that the vocabulary names are masked
    as a whole. A learned vector stands for a masked word, whatever the tokenizer has; all of it stays behind.
    """

    weight: float = Field(default=0.2, gt=0)
    share: float = Field(default=0.15, gt=0, lt=1)
    """Share of a caption's tokens that are guessed: of ten, eight are masked, one is another word and one stays."""
    fuse_layers: tuple[int, ...] | None = None
    """Text layers, from 0, in front of which the image's feature is added; the first and the middle one where None."""


class Distill(Section):
    """`distill`: images and captions fit as stored vectors of teachers say (MobileCLIP), of `data.reinforced`. It
    usually stands in the place of the plain term: `contrastive: 0`. Real and synthetic captions are added up.
    """

    weight: float = Field(default=1.0, gt=0)
    """Weight of what the teachers say."""
    contrastive: float = Field(default=0.0, ge=0)
    """Weight of the CLIP loss of the same images and captions: 0.25 beside 0.75 is what DataCompDR-1B has."""
    synthetic: bool = False
    """Whether a synthetic caption of each sample is read beside the real one, where it has any."""
    form: Literal["average", "plain", "sigmoid"] = "average"
    """Softmaxes of the teachers are averaged; or one softmax is made of their joined vectors; or each pair is a
    question by itself."""
    dims: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Widths of the teachers, for shards that MobileCLIP's own code reinforced, which do not say them."""
    scales: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Factor of the cosines of each teacher; their own where empty. At 100 small batches are told next to nothing but
    what belongs together."""
    biases: tuple[float, ...] = ()
    """Bias of each teacher, for `form: sigmoid`; their own where empty."""


class Levels(Section):
    """`levels`: images and texts are compared at three levels (PyramidCLIP, a reconstruction): the image as it is drawn
    and its summary, a part of it and the full text, its regions with both texts, its attributes with both views. It
    usually stands in the place of the plain term: `contrastive: 0`, with `augment.crop_scale: [0.9, 1]`.
    """

    weight: float = Field(default=1.0, gt=0)
    regions: Share = 0.25
    """Weight of the regions' pairs (the paper's lambda); at 0 no regions are read."""
    attributes: Share = 0.25
    """Weight of the attributes' pairs (the paper's mu); peers have what is left."""
    share: float = Field(default=0.1, ge=0, lt=1)
    """Share of each target that goes to the other pairs of the batch."""
    local_crop: tuple[float, float] = (0.6, 1.0)
    """Least and largest share of the image's area in the local view."""
    grid: int = Field(default=3, ge=1, le=3)
    """Rows and columns of the grid of regions over the tower's last feature map."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.regions + self.attributes > 1:
            raise ValueError("regions and attributes weigh more than 1 together")
        if not 0 < self.local_crop[0] <= self.local_crop[1] <= 1:
            raise ValueError("local_crop is two shares of an area above 0 and up to 1, the smaller first")
        return self
