"""One module a family of architectures, and its near kin."""
