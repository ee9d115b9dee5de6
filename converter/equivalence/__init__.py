"""Whether two runs are the same model: inputs, comparison, error budget, reports."""
