"""Maps of what patches add to the answer of a slide: images, GeoJSON for QuPath, DICOM parametric maps."""
