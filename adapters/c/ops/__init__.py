"""What operators of the core are in C, one file a family."""
