"""What goes wrong with images in a clinic, in five grades: MedMNIST-C's corruptions of 8-bit images."""
