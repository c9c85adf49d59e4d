"""One modality, one file: a file becomes a Sample. What is said of a modality elsewhere is a row of
`medclip/modalities.py`.
"""
