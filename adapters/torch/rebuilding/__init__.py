"""Neutral models as PyTorch modules again."""
