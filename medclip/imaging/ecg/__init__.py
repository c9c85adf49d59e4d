"""ECG records in millivolts, and the sheet that people read."""
