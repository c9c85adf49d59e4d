"""Methods that leave the towers as they are and learn on their features; those that change towers are in `towers`."""
