"""One reader for each ECG format, to a `Recording`; the twelve leads are made of it outside."""
