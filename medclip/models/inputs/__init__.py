"""What a model is shown: images, volumes, loops and ECGs at its size, rate and scale. No torch here."""
