"""The files of a run: where they lie, in which windows they are looked at, and those that are fetched first."""
