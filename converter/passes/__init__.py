"""A graph or a model as another that computes the same: cast, folded, decomposed, rewritten, rolled up."""
