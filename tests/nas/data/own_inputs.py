"""Inputs as people bring them, each with what must come of it: the right value, or words that help.

`python -m tests.nas.data.own_inputs FOLDER` writes all of them, a folder each, to look at.
"""

import sys
from pathlib import Path

from tests.nas.data import own_input_folders, own_input_images, own_input_tables  # noqa: F401 - each adds its inputs
from tests.nas.data.own_input import INPUTS

__all__ = ["INPUTS"]

if __name__ == "__main__":
    for name, given in INPUTS.items():
        target = Path(sys.argv[1]) / name
        target.mkdir(parents=True)
        given.make(target)
