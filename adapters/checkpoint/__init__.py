"""PyTorch's zip checkpoints read with NumPy alone: a strict archive reader, a strict unpickler, mapped tensors."""
