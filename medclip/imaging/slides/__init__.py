"""Whole-slide images: readers behind one protocol, tissue, patch grid, patches, outlines. Micrometres, never levels."""

from medclip.imaging.slides.picture import overview as overview
from medclip.imaging.slides.reader import SlideReader as SlideReader
from medclip.imaging.slides.reader import open_slide as open_slide
