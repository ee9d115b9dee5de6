"""One file per family of architectures: its published sizes as a table, and the function that builds its graph."""
