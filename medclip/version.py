"""The version of medclip; it goes into every run, pack and page."""

__version__ = "0.2.0"
