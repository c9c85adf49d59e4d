"""Everything that is DICOM and no modality: headers, codecs, the order of operations on pixels; no network."""
