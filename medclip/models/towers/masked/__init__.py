"""What masked pretraining puts beside a tower: the decoder, and fixed positions."""
