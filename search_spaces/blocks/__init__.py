"""Modules that search spaces and reference networks are built of."""
