"""A training on the disk, after each epoch: whoever kills it loses an epoch, and no number changes."""

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nas.faults import blaming_machine
from nas.files import atomic_path

_log = logging.getLogger(__name__)


class Checkpoint:
    """The file of one training's state.

    Args:
        path: The file; its folder exists.
        training: All that the training's result depends on, as plain JSON values; a file of another training is not
            taken up.
    """

    def __init__(self, path: Path, training: Mapping[str, Any]) -> None:
        self.path = path
        self._key = json.dumps({**training, "torch": torch.__version__}, sort_keys=True)

    def read(self) -> dict[str, Any] | None:
        """Return the state that was kept last; `None` if there is none, or it is damaged or another training's."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
            is_ours = state.pop("training") == self._key
        except Exception:  # noqa: BLE001 - whatever damaged bytes make torch raise
            _log.warning("%s is damaged: the training starts over", self.path)
            return None
        if not is_ours:
            _log.warning("%s is of a training with other settings, which is given up", self.path)
        return state if is_ours else None

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep `state`: tensors, numbers, texts, lists and dictionaries of them.

        Raises:
            MachineError: If it cannot be written.
        """
        with blaming_machine(f"{self.path} cannot be written"), atomic_path(self.path) as temporary:
            torch.save({**state, "training": self._key}, temporary)

    def remove(self) -> None:
        """Remove the file; the training is over."""
        self.path.unlink(missing_ok=True)
