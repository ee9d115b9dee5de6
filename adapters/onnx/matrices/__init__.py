"""Algorithms on matrices as ONNX sub-graphs: eliminations, reflections, rotations. All run in float64, on the last two axes."""
