"""Whole-slide images: a reader in micrometres, tissue, patch grid, patches, outlines. Micrometres, never levels."""

from medclip.imaging.slides.outlines import overview as overview
from medclip.imaging.slides.readers.open import open_slide as open_slide
from medclip.imaging.slides.readers.pyramid import SlideReader as SlideReader
