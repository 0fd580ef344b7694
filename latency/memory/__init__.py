"""Peak memory of a model."""
