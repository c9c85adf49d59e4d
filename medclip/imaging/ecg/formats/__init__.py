"""One reader for each ECG format."""
