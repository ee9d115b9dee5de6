"""Safetensors files in and out, with NumPy alone."""
