"""All that can be checked on one CUDA device in a given time, from nothing but this checkout."""

import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from experiments.common import machine, parser, report
from experiments.gpu_suite.parts import PARTS, REQUIREMENTS
from experiments.gpu_suite.suite import Suite, load_before, not_installed, say_with_time, write_whole

_REPORTING_S = 10.0  # kept back of the time


def main() -> None:
    """Run the suite."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--minutes", type=float, help="for everything; by default 60, and 10 for a rehearsal")
    arguments.add_argument("--rehearse", action="store_true", help="run everything tiny, on the CPU")
    arguments.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these")
    arguments.add_argument("--requirements", action="store_true", help="print what must be installed, and end")
    options = arguments.parse_args()
    if options.requirements:
        print("\n".join(REQUIREMENTS.values()))
        return
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here: run this where one is, or try it out with --rehearse")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside; what is finished is kept"))
    start = time.monotonic()
    seconds = 60 * (options.minutes or (10 if options.rehearse else 60))
    accelerator = None if options.rehearse else torch.cuda.get_device_properties(0).name
    heading = {
        "minutes": seconds / 60,
        "rehearsal": options.rehearse,
        "accelerator": accelerator,
        "not_installed": not_installed(REQUIREMENTS),
    }

    def keep(parts: Mapping[str, Any]) -> None:
        if options.save:
            write_whole(options.save, {**heading, "parts": parts, "machine": machine()})

    chosen = [part for part in PARTS if not options.parts or part.name in options.parts]
    suite = Suite(chosen, seconds - min(_REPORTING_S, seconds / 10), options.rehearse, say_with_time(start))
    before = load_before(options.save, rehearse=options.rehearse, accelerator=accelerator)
    ends = suite.run(before, lambda parts: keep({**before, **parts}))
    report({**heading, "parts": {**before, **ends}, "seconds": round(time.monotonic() - start, 1)}, options)


if __name__ == "__main__":
    main()
