"""The operators: one file per family. `converter.opset` finds them; there is no list to edit."""
