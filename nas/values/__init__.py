"""Plain values of a search: objectives, metrics, records, the archive, recipes, budgets. No I/O, no torch."""
