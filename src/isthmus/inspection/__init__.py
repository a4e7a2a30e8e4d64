"""Looking into a model: parameters."""
