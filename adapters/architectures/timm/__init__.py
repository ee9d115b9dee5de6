"""timm's architectures: `models.json` says what timm's entry points build, and a file for each class builds its graph."""
