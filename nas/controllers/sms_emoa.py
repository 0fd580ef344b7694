"""SMS-EMOA: survivors are those that the hypervolume would miss."""

from typing import Any

from pymoo.algorithms.moo.sms import SMSEMOA

from nas.controllers.nsga2 import Nsga2


class SmsEmoa(Nsga2):
    """NSGA-II's operators, its survivors chosen by their contribution to the hypervolume.

    Options are those of `Nsga2`.

    Source:
        Beume et al. 2007, doi:10.1016/j.ejor.2006.08.008, as implemented by pymoo, with uniform crossover.
        Differs: a whole generation competes at once, since candidates are evaluated in batches.
    """

    def _new_algorithm(self, **options: Any) -> Any:
        return SMSEMOA(n_offsprings=options["pop_size"], **options)
