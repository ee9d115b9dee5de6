"""Complex tensors in ONNX, which has no arithmetic for them."""
