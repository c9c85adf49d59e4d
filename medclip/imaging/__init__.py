"""Pure functions on pixels: DICOM pixel semantics, geometry, intensity, breast and retina crops."""
