"""The costs of one network, module by module, as `nas profile` shows them."""
