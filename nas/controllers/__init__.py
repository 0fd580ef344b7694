"""Controllers: which candidates to evaluate next."""

from nas.controllers.base import Controller, SearchProblem
from nas.controllers.nsga2 import Nsga2
from nas.controllers.nsga3 import Nsga3
from nas.controllers.ppo import Ppo
from nas.controllers.random_search import RandomSearch
from nas.controllers.regularized_evolution import RegularizedEvolution
from nas.controllers.simulated_annealing import SimulatedAnnealing
from nas.controllers.sms_emoa import SmsEmoa
from nas.controllers.surrogate_nsga2 import SurrogateNsga2

CONTROLLERS: dict[str, type[Controller]] = {
    "nsga2": Nsga2,
    "nsga3": Nsga3,
    "sms_emoa": SmsEmoa,
    "random": RandomSearch,
    "ppo": Ppo,
    "regularized_evolution": RegularizedEvolution,
    "simulated_annealing": SimulatedAnnealing,
    "surrogate_nsga2": SurrogateNsga2,
}

__all__ = [
    "CONTROLLERS",
    "Controller",
    "Nsga2",
    "Nsga3",
    "Ppo",
    "RandomSearch",
    "RegularizedEvolution",
    "SearchProblem",
    "SimulatedAnnealing",
    "SmsEmoa",
    "SurrogateNsga2",
]
