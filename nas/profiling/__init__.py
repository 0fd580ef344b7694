"""What one network costs, module by module, as `nas profile` shows it."""
