"""What of torch is exchanged while a module is traced, so that a trace can hold it at every size."""
