"""`model.lens`: a lens in front of the frozen tower of a pack."""

from __future__ import annotations

from pydantic import Field

from medclip.training.recipe.sections.section import Section


class LensPart(Section):
    """Bring ECGs (`model.signal`) or volumes (`model.volume`) into the space of a pack of images (ViT-Lens): tokens go
    through a small lens into its vision transformer, which stays as it is, as does its text tower. Only the lens
    learns, so that few samples do.
    """

    trunk: str
    """The pack, whose image tower is a plain vision transformer of timm."""
    depth: int = Field(default=2, ge=1)
    """Rounds in which latents look at tokens."""
    self_per_cross: int = Field(default=1, ge=0)
    """Blocks of self-attention among latents in a round."""
    latents: int | None = Field(default=None, ge=1)
    """Latents that the lens gives; as many as the tower has patches where None, so that its table of positions fits.
    With another number a table is learned anew."""
    cross_heads: int = Field(default=1, ge=1)
    latent_heads: int = Field(default=8, ge=1)
    head_dim: int = Field(default=64, ge=1)
    """Width of each of these heads of attention."""
    tied: bool = False
    """Let all rounds but the first share their weights; for small sets."""
    token_width: int | None = Field(default=None, ge=4)
    """Width of tokens; that of the tower where None."""
    patch_px: int = Field(default=16, ge=1)
    """Side of a token of volumes; their slices are `model.volume.tubelet`."""
    fourier_bands: int = Field(default=0, ge=0, le=64)
    """Frequencies of fixed positions beside the learned ones; 0: none."""
    unlock_cls: bool = False
    """Let the class token of the tower learn, too."""
    unlock_blocks: int = Field(default=0, ge=0)
    """First blocks of the tower that learn, too."""
    image_anchor: float = Field(default=0.0, ge=0)
    """Weight of the pack's own features of the middle slice or frame, beside those of the words (1): the published loss
    has 1. Of volumes and loops; of an ECG there is no such image."""
