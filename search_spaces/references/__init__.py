"""Fixed networks to compare with and to learn from."""
