"""torchvision's checkpoints: the architecture recognised by names and shapes, with no framework imported and no code run."""
