"""Lowerings, one file per operator family. `adapters.onnx.registry` finds them."""
