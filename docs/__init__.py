"""The documentation, and what generates the parts of it that the registry decides."""
