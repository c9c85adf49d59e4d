"""Tables of ECG sets, each with its own columns, read into one form."""
