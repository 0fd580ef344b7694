"""Many candidates at a time on the nodes of a Ray cluster. Ray is an extra: `pip install "pareto-nas[ray]"`."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from annotated_types import Ge, Gt, Le, Unit

from nas.errors import InputError
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.events import Event, Job
from nas.execution.base import Executor, JobQueue, free_unused_memory
from nas.execution.ray_api import ray_api
from nas.execution.ray_devices import DeviceNodes
from nas.execution.ray_places import ClusterPlaces
from nas.execution.ray_workers import WorkerGroup
from nas.execution.time_limit import TimeLimit
from nas.values.bounds import bounded
from nas.values.records import RecordState

_DEVICE = "device:"  # begins the names of device stages, and of the resources that label their nodes

T = TypeVar("T")


class RayExecutor(Executor):
    """Evaluates candidates on all nodes of a Ray cluster with enough resources; new nodes are used as they join.

    A worker that dies, works longer than its limit or runs out of memory costs its candidate an attempt. A node that is
    lost costs none: its candidates are evaluated elsewhere. Data and teacher outputs are put into the object store
    once, and copied to nodes that do not have the files. Teacher and encoder are made by the process that searches: it
    too needs the device `training.device`.

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
        n_threads: Annotated[int, Ge(1), Le(1024)] = 1,
        candidate_timeout_s: Annotated[float, Gt(0), Le(1e6), Unit("s")] | None = None,
    ) -> None:
        needs = {"cpu": float(n_threads), **(resources_per_candidate or {})}
        if min(needs.values()) < 0 or not (needs["cpu"] or needs.get("gpu")):
            text = "must be amounts of at least 0, some cpu or gpu among them"
            raise ValueError(f"resources_per_candidate {text}, got {dict(needs)}")
        self._address = address
        self._needs = {name.upper() if name in ("cpu", "gpu") else name: n for name, n in needs.items() if n}
        self._n_threads = n_threads
        self._limit = TimeLimit(candidate_timeout_s)
        self._places = ClusterPlaces(self._needs)
        self._device_nodes = DeviceNodes()
        self._workers: WorkerGroup | None = None

    def run(self, evaluator: Evaluator, jobs: Iterable[Job | None], on_event: Callable[[Event], None]) -> None:
        """Evaluate all `jobs`."""
        self._connect()
        workers = self._workers_for(evaluator)
        queue = JobQueue(jobs, on_event)
        try:
            while workers.start_jobs(queue, self._places.count()):
                workers.receive(queue, on_event)
                workers.stop_late(queue)
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
                end = dataclasses.replace(happened[-1], worker=stage.name)
                on_event(end)
                if end.state is RecordState.ASKED:
                    going_on.append(job)
            jobs = going_on
        last = dataclasses.replace(evaluator, stages=())
        for job in jobs:
            last.run(job, on_event)

    def at_device(self, stage: str, function: Callable[..., T], *arguments: object, isolated: bool = False) -> T:
        """Call `function` on a node with that device, where nothing else runs meanwhile, and return its result.

        When the node goes away, the call is made again once it is back.

        Raises:
            InputError: If no such node was ever there, it offers places to trainings, or the call was lost too often.
        """
        if not stage.startswith(_DEVICE):
            return self.call(function, *arguments) if isolated else function(*arguments)
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
        n_workers = len(self._workers) if self._workers else 0
        return n_workers * self._needs.get("GPU", 0.0)

    def n_at_a_time(self, device: str) -> int:
        """Return how many candidates the nodes that are there now can hold.

        Raises:
            InputError: If there is no such cluster.
        """
        self._connect()
        return max(1, self._places.count())

    def close(self) -> None:
        """End the workers; the cluster stays."""
        if self._workers is not None:
            self._workers.close()
        self._workers = None

    def _workers_for(self, evaluator: Evaluator) -> WorkerGroup:
        """Return the workers of `evaluator`; those of another one are ended."""
        if self._workers is None or self._workers.evaluator is not evaluator:
            self.close()
            free_unused_memory()  # which the teacher took; the workers need it
            self._limit.forget()
            self._workers = WorkerGroup(evaluator, self._needs, self._n_threads, self._limit)
        return self._workers

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


def _events(evaluator: Evaluator, jobs: Sequence[Job]) -> list[list[Any]]:
    """Evaluate `jobs` one after the other and return the events of each."""
    happened: list[list[Any]] = []
    for job in jobs:
        happened.append([])
        evaluator.run(job, happened[-1].append)
    return happened
