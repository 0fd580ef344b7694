"""Follow a search while it runs: console, plots, TensorBoard."""
