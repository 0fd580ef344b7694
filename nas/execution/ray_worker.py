"""One worker of a Ray cluster: its actor on a node, and the driver's handle of it."""

import dataclasses
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.errors import InputError, MachineError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Ended, Event, Job
from nas.execution.ray_api import ray_api
from nas.files import atomic_path
from nas.torch_tools import torch_threads


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The file of a candidate's weights, on its way to the run's folder."""

    candidate: str
    content: bytes


class NodeWorker:
    """Evaluates jobs on a node of the cluster. Lives there as a Ray actor."""

    def __init__(self, evaluator: Evaluator, n_threads: int) -> None:
        self._evaluator = evaluator
        self._n_threads = n_threads

    def missing_files(self) -> list[Path]:
        """Return which of the files that stages read are not on this node."""
        return [path for path in self._evaluator.files if not path.exists()]

    def receive(self, contents: Mapping[Path, Any]) -> None:
        """Write files from the object store; their names are hashes of their origin, so any copy is as good."""
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                ray_api().get(content).tofile(temporary)

    def run(self, job: Job) -> Iterator[Event | WeightsFile | InputError | MachineError]:
        """Evaluate `job`; yield events as they happen, the weights before the last one."""
        events: queues.SimpleQueue[Event | BaseException] = queues.SimpleQueue()
        threading.Thread(target=self._evaluate, args=(job, events.put), daemon=True).start()
        while not isinstance(event := events.get(), Ended | BaseException):
            yield event
        if isinstance(event, Ended):
            event = dataclasses.replace(event, worker=f"node {ray_api().util.get_node_ip_address()}")
            yield from self._kept_weights(job.candidate.id)
        elif not isinstance(event, InputError | MachineError):
            raise event
        yield event

    def _evaluate(self, job: Job, put: Callable[[Event | BaseException], None]) -> None:
        try:
            if self._evaluator.weights is not None:
                self._evaluator.weights(job.candidate.id).parent.mkdir(parents=True, exist_ok=True)
            with torch_threads(self._n_threads):
                self._evaluator.run(job, put)
        except InputError as error:
            put(InputError(str(error)))
        except MachineError as error:
            put(MachineError(f"on node {ray_api().util.get_node_ip_address()}: {error}"))
        except BaseException as error:  # noqa: BLE001 - raised again in the driver
            put(error)

    def _kept_weights(self, candidate: str) -> Iterator[WeightsFile]:
        path = self._evaluator.weights(candidate) if self._evaluator.weights else None
        if path is not None and path.exists():
            yield WeightsFile(candidate, path.read_bytes())


class WorkerHandle:
    """The driver's side of a `NodeWorker`: starting until it has all files, then idle or busy.

    Attributes:
        actor: The `NodeWorker`.
        awaited: Ray's reference of an answer, or the stream of a job's events; `None` when idle.
        is_ready: Whether it has all files.
        job: That it works on.
        since: When it began to start, or to work on its job.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.awaited: Any = actor.missing_files.remote()
        self.is_ready = False
        self.job: Job | None = None
        self.since = time.monotonic()

    def start(self, job: Job) -> None:
        """Give the worker a job."""
        self.job = job
        self.awaited = self.actor.run.options(num_returns="streaming").remote(job)
        self.since = time.monotonic()

    def set_idle(self) -> None:
        """Mark the worker as ready for a job."""
        self.is_ready, self.job, self.awaited = True, None, None
