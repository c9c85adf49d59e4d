"""Figures of open-access articles, with their captions and the paragraphs that cite them, as shards."""
