"""Methods that leave the towers as they are and learn on their features."""
