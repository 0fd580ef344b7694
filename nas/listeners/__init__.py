"""Listeners (callbacks) that show a search while it runs: console, plots, TensorBoard."""
