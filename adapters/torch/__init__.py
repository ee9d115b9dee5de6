"""PyTorch in and out: checkpoints, live modules through `torch.export`, and state_dicts back."""
