"""The answers of whole studies and of mammography examinations."""
