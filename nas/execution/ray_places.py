"""How many candidates the nodes of a Ray cluster can hold at the moment."""

import logging
import math
import time
from collections.abc import Mapping

from nas.execution.ray_api import ray_api

_POLL_S = 1.0  # between looks at which nodes there are

_log = logging.getLogger(__name__)


class ClusterPlaces:
    """Counts the candidates that fit on the nodes that are there; nodes come and go.

    Args:
        needs: Resources of one candidate, in Ray's names.
    """

    def __init__(self, needs: Mapping[str, float]) -> None:
        self._needs = needs
        self._n_places, self._looked_at = 0, -math.inf

    def count(self) -> int:
        """Return the number of places; it may be a second old."""
        if (now := time.monotonic()) - self._looked_at >= _POLL_S:
            self._looked_at = now
            offers = [node["Resources"] for node in ray_api().nodes() if node["Alive"]]
            self._n_places = sum(map(self._n_on_node, offers))
            if not self._n_places:
                _log.warning("No node of the Ray cluster offers %s; waiting for one.", self._needs)
        return self._n_places

    def _n_on_node(self, offer: Mapping[str, float]) -> int:
        return int(min(offer.get(name, 0.0) / n for name, n in self._needs.items()) + 1e-9)
