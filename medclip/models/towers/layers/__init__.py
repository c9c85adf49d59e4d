"""What is done to the layers of a tower that is built."""
