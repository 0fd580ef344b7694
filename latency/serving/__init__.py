"""Latency measured on a board: `python -m latency.serving` there, `kind: remote` in a configuration here."""
