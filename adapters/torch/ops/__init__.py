"""Importers and rebuilders, one file per operator family. `adapters.torch.registry` finds them."""
