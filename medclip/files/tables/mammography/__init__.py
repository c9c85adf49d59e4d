"""Tables of public mammography sets, read into one form: one file a set, listed in `tables/column_maps.py`."""
