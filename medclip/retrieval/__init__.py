"""Search in a folder of embeddings, by words and by example."""
