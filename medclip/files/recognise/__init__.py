"""What a file is, told by its bytes and its neighbours, and whether it is read; it is not decoded here."""
