"""The store of slides: one HDF5 file of patch vectors for each slide, and a table with a row for each."""
