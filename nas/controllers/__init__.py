"""Controllers: which candidates to evaluate next."""

from nas.controllers.base import Controller, SearchProblem
from nas.controllers.nsga2 import Nsga2
from nas.controllers.random_search import RandomSearch
from nas.controllers.surrogate_nsga2 import SurrogateNsga2

CONTROLLERS: dict[str, type[Controller]] = {
    "nsga2": Nsga2,
    "random": RandomSearch,
    "surrogate_nsga2": SurrogateNsga2,
}

__all__ = ["CONTROLLERS", "Controller", "Nsga2", "RandomSearch", "SearchProblem", "SurrogateNsga2"]
