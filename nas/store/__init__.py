"""A run on disk: its folder, its SQLite store, artifacts shared with other runs; and a run read back."""
