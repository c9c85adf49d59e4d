"""What a frozen tower knows of places: a head over its feature maps learns to segment."""
