"""Hugging Face folders: config.json and a state_dict become a graph, without transformers and without PyTorch."""
