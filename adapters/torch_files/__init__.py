"""PyTorch's zip checkpoints read with NumPy alone: a strict archive reader, a strict unpickler, tensors as they are asked for."""
