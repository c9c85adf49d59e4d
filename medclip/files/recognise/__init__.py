"""What a file is, told by its bytes and its neighbours."""
