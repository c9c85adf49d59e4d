"""Everything that is DICOM and no modality."""
