"""What is taken of a pile of pairs or patches, and with which weight; not the words that it gets."""
