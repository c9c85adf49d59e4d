"""Search in a folder of embeddings or of slides, by words and by example; how well a pack retrieves is not here."""
