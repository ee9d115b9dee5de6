"""Readers of ONNX's operators, by the families of `adapters/onnx/ops`; `adapters.onnx.registry` says what a reader is."""
