"""ONNX files of other origins as neutral models: `read_foreign`; the readers of operators lie in `adapters.onnx.readers`."""
