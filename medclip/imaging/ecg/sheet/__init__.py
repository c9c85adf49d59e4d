"""ECGs on paper: draw a record as a sheet, spoil the sheet as scanners and hands do, and read its leads back; files
are read and written outside.
"""
