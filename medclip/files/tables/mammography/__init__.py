"""Tables of public mammography sets, read into one form: one file a set, `ALL` in `column_maps` lists them."""
