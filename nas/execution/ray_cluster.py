"""Many candidates at a time on the nodes of a Ray cluster. Ray is an extra: `pip install "pareto-nas[ray]"`."""

import dataclasses
import logging
import math
import queue as queues
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from annotated_types import Ge, Gt

from nas.errors import InputError
from nas.evaluation.evaluator import Ended, Evaluator, Event, Job, Reading
from nas.execution.base import Executor, JobQueue, free_unused_memory, memory_fault
from nas.execution.ray_api import ray_api
from nas.execution.ray_devices import DeviceNodes
from nas.execution.time_limit import START_LIMIT_S, TimeLimit
from nas.files import atomic_path
from nas.torch_tools import torch_threads
from nas.values.bounds import bounded
from nas.values.records import RecordState

_DEVICE = "device:"  # begins the names of device stages, and of the resources that label their nodes
_POLL_S = 1.0  # between looks at which nodes there are
_MAX_FAILED_STARTS = 5  # of workers, one after the other
_MAX_NODES_LOST = 3  # under one candidate, before it counts as its fault

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The file of a candidate's weights, on its way to the run's folder."""

    candidate: str
    content: bytes


class _NodeWorker:
    """Evaluates jobs on a node of the cluster. Lives there as a Ray actor."""

    def __init__(self, evaluator: Evaluator, n_threads: int) -> None:
        self._evaluator = evaluator
        self._n_threads = n_threads

    def missing_files(self) -> list[Path]:
        """Return which of the files that stages read are not on this node."""
        return [path for path in self._evaluator.files if not path.exists()]

    def receive(self, contents: Mapping[Path, Any]) -> None:
        """Write files from the object store; their names tell their content, so any copy is as good."""
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                ray_api().get(content).tofile(temporary)

    def run(self, job: Job) -> Iterator[Event | _Weights | InputError]:
        """Evaluate `job`; yield what happens, as it does."""
        events: queues.SimpleQueue[Event | InputError | BaseException] = queues.SimpleQueue()
        threading.Thread(target=self._evaluate, args=(job, events.put), daemon=True).start()
        while not isinstance(event := events.get(), Ended | BaseException):
            yield event
        if isinstance(event, Ended):
            yield from self._kept_weights(job.candidate.id)
        elif not isinstance(event, InputError):
            raise event
        yield event

    def _evaluate(self, job: Job, tell: Callable[[Event | BaseException], None]) -> None:
        try:
            if self._evaluator.weights is not None:
                self._evaluator.weights(job.candidate.id).parent.mkdir(parents=True, exist_ok=True)
            with torch_threads(self._n_threads):
                self._evaluator.run(job, tell)
        except InputError as error:
            tell(InputError(str(error)))
        except BaseException as error:  # noqa: BLE001 - raised again where the driver sees it
            tell(error)

    def _kept_weights(self, candidate: str) -> Iterator[_Weights]:
        path = self._evaluator.weights(candidate) if self._evaluator.weights else None
        if path is not None and path.exists():
            yield _Weights(candidate, path.read_bytes())


class _Worker:
    """The driver's side of a `_NodeWorker`: starting until it has all files, then idle or busy."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.awaited: Any = actor.missing_files.remote()  # an answer, or the events of a job; `None` when idle
        self.is_ready = False
        self.job: Job | None = None
        self.since = time.monotonic()  # when it began to start, or to work on its job

    def start(self, job: Job) -> None:
        self.job = job
        self.awaited = self.actor.run.options(num_returns="streaming").remote(job)
        self.since = time.monotonic()


class RayExecutor(Executor):
    """Evaluates candidates on all nodes of a Ray cluster that offer what one needs; new nodes are used as they come.

    A worker that dies, works longer than its limit or runs out of memory costs its candidate an attempt. A node that is
    lost costs none: its candidates are evaluated elsewhere. Data and teacher outputs are put into the object store
    once, and copied to nodes that do not have the files. Teacher and encoder are made by the process that searches: it
    too needs what `training.device` names.

    Devices are measured only on nodes that carry the resource `device:NAME`, NAME being the device's in the
    configuration. Such a node must offer no CPU or GPU to Ray, so that nothing else runs there:
    `ray start --address=HEAD:6379 --num-cpus=0 --num-gpus=0 --resources='{"device:NAME": 1}'`.

    Args:
        address: Of the cluster: `auto` for the one of this node, `HOST:PORT`, or `local` to start one here.
        resources_per_candidate: `cpu`, `gpu` (shares too) and custom resources; cpu is `n_threads` by default.
        n_threads: CPU threads of a training.
        candidate_timeout_s: The limit of one attempt; by default 20 times the longest candidate so far and at least 10
            minutes, a day while none has ended.
    """

    measures_apart: ClassVar[bool] = True

    @bounded
    def __init__(
        self,
        address: str = "auto",
        resources_per_candidate: Mapping[str, float] | None = None,
        n_threads: Annotated[int, Ge(1)] = 1,
        candidate_timeout_s: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        needs = {"cpu": float(n_threads), **(resources_per_candidate or {})}
        if min(needs.values()) < 0 or not (needs["cpu"] or needs.get("gpu")):
            text = "must be amounts of at least 0, some cpu or gpu among them"
            raise ValueError(f"resources_per_candidate {text}, got {dict(needs)}")
        self._address = address
        self._needs = {name.upper() if name in ("cpu", "gpu") else name: n for name, n in needs.items() if n}
        self._n_threads = n_threads
        self._limit = TimeLimit(candidate_timeout_s)
        self._evaluator: Evaluator | None = None
        self._evaluator_ref: Any = None
        self._files: dict[Path, Any] = {}  # in the object store
        self._workers: list[_Worker] = []
        self._waiting: deque[Job] = deque()  # for a worker that is being started
        self._nodes_lost: Counter[str] = Counter()  # by candidate
        self._n_failed_starts = 0
        self._n_places, self._looked_at = 0, -math.inf
        self._device_nodes = DeviceNodes()

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        self._connect()
        if evaluator is not self._evaluator:
            self.close()
            free_unused_memory()  # the workers need what this process took for the teacher
            self._evaluator, self._evaluator_ref = evaluator, ray_api().put(evaluator)
            self._limit.forget()
        queue = JobQueue(jobs, on_event)
        try:
            while self._start_jobs(queue):
                for worker in self._wait():
                    self._receive(worker, queue, on_event)
                self._stop_late(queue)
        except BaseException:
            self.close()
            raise

    def measure(self, evaluator: Evaluator, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> None:
        """Evaluate `jobs`, each stage where its device is, the others here."""
        for stage in evaluator.stages:
            part = dataclasses.replace(evaluator, stages=(stage,), is_last=False)
            events = self.at_device(stage.name, _events, part, jobs)
            going_on = []
            for job, happened in zip(jobs, events, strict=True):
                for event in happened[:-1]:
                    on_event(event)
                    job = job.with_readings(event.observations)  # noqa: PLW2901 - the job as it is now
                if happened[-1].state is RecordState.ASKED:
                    going_on.append(job)
                else:
                    on_event(happened[-1])
            jobs = going_on
        last = dataclasses.replace(evaluator, stages=())
        for job in jobs:
            last.run(job, on_event)

    def at_device(self, stage: str, function: Callable[..., T], *arguments: object) -> T:
        """Return what `function` returns on a node with that device, where nothing else runs meanwhile.

        When the node goes away, the call is made again once it is back.

        Raises:
            InputError: If no such node was ever there, it offers places to trainings, or the call was lost too often.
        """
        if not stage.startswith(_DEVICE):
            return function(*arguments)
        self._connect()
        return self._device_nodes.call(stage, function, *arguments)

    def check_device(self, device: str) -> None:
        """Check that a candidate's resources hold a share of a GPU where it trains on one; Ray hides all others.

        Raises:
            ValueError: If they don't.
        """
        if device.startswith("cuda") and not self._needs.get("GPU"):
            raise ValueError(
                f"resources_per_candidate must hold a share of a gpu, such as {{gpu: 0.25}}, where training.device is "
                f"{device}; got {dict(self._needs)}, and Ray hides GPUs from workers that ask for none"
            )

    def n_gpus(self, device: str) -> float:
        """Return the GPUs, or shares of them, that workers hold."""
        return len(self._workers) * self._needs.get("GPU", 0.0)

    def n_at_a_time(self, device: str) -> int:
        """Return how many candidates the nodes that are there now can hold.

        Raises:
            InputError: If there is no such cluster.
        """
        self._connect()
        self._look_at_nodes()
        return max(1, self._n_places)

    def close(self) -> None:
        """End the workers; the cluster stays."""
        while self._workers:
            self._drop(self._workers[-1])
        self._waiting.clear()
        self._evaluator = self._evaluator_ref = None
        self._files.clear()

    def _connect(self) -> None:
        """Connect to the cluster, unless this process is already.

        Raises:
            InputError: If there is no such cluster.
        """
        if ray_api().is_initialized():
            return
        options = {"log_to_driver": False, "logging_level": logging.WARNING}
        try:
            ray_api().init(address=self._address, **options)
        except (ConnectionError, ValueError) as error:
            raise InputError(
                f"execution.address {self._address!r}: no Ray cluster answers there ({error}); "
                "start one with `ray start --head`, or use address: local"
            ) from error

    def _look_at_nodes(self) -> None:
        """Count how many candidates the nodes that are there now can hold."""
        if (now := time.monotonic()) - self._looked_at >= _POLL_S:
            self._looked_at = now
            offers = [node["Resources"] for node in ray_api().nodes() if node["Alive"]]
            self._n_places = sum(
                int(min(offer.get(name, 0.0) / n for name, n in self._needs.items()) + 1e-9) for offer in offers
            )
            if not self._n_places:
                _log.warning("No node of the Ray cluster offers %s; waiting for one.", self._needs)

    def _start_jobs(self, queue: JobQueue) -> bool:
        """Give jobs to all free places; return whether anything runs or waits for a worker."""
        self._look_at_nodes()
        busy = [worker for worker in self._workers if worker.job]
        n_places = max(1, self._n_places, len(self._workers))
        while (n_running := len(busy) + len(self._waiting)) < n_places and (job := queue.take(n_running)) is not None:
            self._waiting.append(job)
        for worker in self._workers:
            if self._waiting and worker.is_ready and worker.job is None:
                worker.start(self._waiting.popleft())
        n_starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - n_starting, n_places - len(self._workers))):
            self._workers.append(_Worker(self._new_actor()))
        return bool(self._waiting) or any(worker.job for worker in self._workers)

    def _new_actor(self) -> Any:
        custom = {name: n for name, n in self._needs.items() if name not in ("CPU", "GPU")}
        options = {"num_cpus": self._needs.get("CPU", 0), "num_gpus": self._needs.get("GPU", 0), "resources": custom}
        return ray_api().remote(_NodeWorker).options(**options).remote(self._evaluator_ref, self._n_threads)

    def _wait(self) -> list[_Worker]:
        """Return the workers that have something to say, after a while at most."""
        awaited = {worker.awaited: worker for worker in self._workers if worker.awaited is not None}
        seconds = max(0.0, min((_POLL_S, *map(self._seconds_left, self._workers))))
        ready, _ = ray_api().wait(list(awaited), num_returns=1, timeout=seconds)
        return [awaited[reference] for reference in ready]

    def _receive(self, worker: _Worker, queue: JobQueue, on_event: Callable[[Event], None]) -> None:
        try:
            if not worker.is_ready:
                self._make_ready(worker)
                return
            event = ray_api().get(next(worker.awaited))
        except ray_api().exceptions.RayError as error:
            self._lose(worker, error, queue)
            return
        assert worker.job is not None  # noqa: S101 - a ready worker is awaited only with a job
        if isinstance(event, InputError):
            raise event
        if fault := memory_fault(event):
            job = worker.job
            self._drop(worker)  # with all that it holds
            queue.fail_attempt(job, fault)
        elif isinstance(event, _Weights):
            self._keep(event)
        else:
            if isinstance(event, Reading):
                worker.job = worker.job.with_readings(event.observations)
            elif isinstance(event, Ended):
                worker.job = worker.awaited = None
                self._limit.note_end(time.monotonic() - worker.since)
            on_event(event)

    def _make_ready(self, worker: _Worker) -> None:
        """Take the answer of a worker that is being started: it misses files, or has all."""
        missing = ray_api().get(worker.awaited)
        if missing:
            for path in missing:
                if path not in self._files:
                    self._files[path] = ray_api().put(np.fromfile(path, dtype=np.uint8))
            worker.awaited = worker.actor.receive.remote({path: self._files[path] for path in missing})
        else:
            worker.is_ready, worker.awaited = True, None
            self._n_failed_starts = 0

    def _lose(self, worker: _Worker, error: Exception, queue: JobQueue) -> None:
        """Deal with a worker that died, alone or with its node."""
        job = worker.job
        self._drop(worker)
        if job is None:
            self._n_failed_starts += 1
            if self._n_failed_starts >= _MAX_FAILED_STARTS:
                raise InputError(f"no worker can be started on the Ray cluster: {error}")
            return
        if _is_loss_of_node(error):
            self._nodes_lost[job.candidate.id] += 1
            if self._nodes_lost[job.candidate.id] <= _MAX_NODES_LOST:
                queue.put_back(job)
                return
        queue.fail_attempt(job, f"its process or node was lost: {error}")

    def _seconds_left(self, worker: _Worker) -> float:
        """Return how long a worker may go on as it does; without end if it has nothing to do."""
        if worker.job is None and worker.is_ready:
            return math.inf
        return worker.since + (self._limit.seconds if worker.job else START_LIMIT_S) - time.monotonic()

    def _stop_late(self, queue: JobQueue) -> None:
        for worker in [worker for worker in self._workers if self._seconds_left(worker) <= 0]:
            if ray_api().wait([worker.awaited], timeout=0)[0]:
                continue  # it has something to say, its end maybe
            self._drop(worker)
            if worker.job:
                queue.fail_attempt(worker.job, self._limit.reason)
            else:  # maybe others use its place: no candidate is to blame, and another worker will be started
                _log.warning("A worker of the Ray cluster did not start within %g s; trying another.", START_LIMIT_S)

    def _keep(self, weights: _Weights) -> None:
        assert self._evaluator is not None  # noqa: S101 - set by run()
        assert self._evaluator.weights is not None  # noqa: S101 - else no weights come
        path = self._evaluator.weights(weights.candidate)
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_bytes(weights.content)

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        ray_api().kill(worker.actor)


def _is_loss_of_node(error: Exception) -> bool:
    """Return whether a worker was lost with its node: then it cannot be reached, or Ray says so."""
    return isinstance(error, ray_api().exceptions.ActorUnavailableError) or "its node has died" in str(error)


def _events(evaluator: Evaluator, jobs: Sequence[Job]) -> list[list[Any]]:
    """Return what happens when `jobs` are evaluated one after the other, for each."""
    happened: list[list[Any]] = []
    for job in jobs:
        happened.append([])
        evaluator.run(job, happened[-1].append)
    return happened
