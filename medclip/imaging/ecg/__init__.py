"""ECG records in millivolts, and the sheet that people read; no diagnosis, and no model."""
