"""Pure functions on pixels, voxels and leads, and the readers of their formats; what a modality does with them is in
`adapters/`.
"""
