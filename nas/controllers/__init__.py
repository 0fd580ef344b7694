"""Controllers: which candidates to evaluate next."""

from nas.controllers.base import Controller, SearchProblem
from nas.controllers.nsga2 import Nsga2
from nas.controllers.random_search import RandomSearch

CONTROLLERS: dict[str, type[Controller]] = {
    "nsga2": Nsga2,
    "random": RandomSearch,
}

__all__ = ["CONTROLLERS", "Controller", "Nsga2", "RandomSearch", "SearchProblem"]
