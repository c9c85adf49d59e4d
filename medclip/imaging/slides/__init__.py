"""Whole-slide images: readers behind one protocol, tissue, patch grid, patches, outlines. Micrometres, never levels."""

from medclip.imaging.slides.patches.overview import overview as overview
from medclip.imaging.slides.readers.open import SlideReader as SlideReader
from medclip.imaging.slides.readers.open import open_slide as open_slide
