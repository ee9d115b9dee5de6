"""Neutral graphs to ONNX nodes: what the lowerings of `adapters/onnx/ops` work with."""
