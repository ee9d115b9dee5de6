"""ONNX out, and the ONNX Runtime session."""
