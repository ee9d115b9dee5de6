"""What families share: embeddings, attention, positions, convolutions, caches and heads."""
