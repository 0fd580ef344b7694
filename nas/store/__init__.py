"""What a run keeps on disk: its folder, its SQLite store, artifacts shared with other runs; and a run read back."""
