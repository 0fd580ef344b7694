"""The command line `nas`: a file for each group of commands, which import what they need when they run."""

from nas.cli.app import main

__all__ = ["main"]
