"""Questions about this program, each with a script that answers it: `python -m experiments.NAME --json`."""
