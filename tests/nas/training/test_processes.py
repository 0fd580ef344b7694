"""Trainings that several processes share, started by torch's launcher."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import nas
from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.errors import InputError
from nas.store.run import load_run
from nas.tasks import Classification
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.processes import ALONE, Processes, SharedData, joined_processes
from nas.values.recipes import TrainingRecipe

pytestmark = pytest.mark.trains

RECIPE = TrainingRecipe(epochs=1, batch_size=8, average_decay=0.5)


def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (44, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageData(Examples(images, torch.randint(2, (44,), generator=generator)), Normalization.of(images))


def network(norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
        )


def trained(processes, norm=False):
    """Return the losses of the last epoch and the network; in each process."""
    model = network(norm)
    task = Classification(("dark", "bright"))
    summary = train(model, RECIPE, task=task, data=data(), seed=0, processes=processes)
    return summary, model


def write_result(folder):
    """What the processes of `test_the_mean_of_the_shares_is_the_whole` run."""
    torch.set_num_threads(1)
    with joined_processes() as processes:
        summary, model = trained(processes)
        _, normed = trained(processes, norm=True)
        shares = [
            batch.targets.tolist()
            for batch in SharedData(data(), processes).batches(
                torch.arange(16).view(2, 8), 1, torch.Generator().manual_seed(0)
            )
        ]
        torch.save(
            {
                "loss": summary.task_loss,
                "weights": model.state_dict(),
                "normed": normed.state_dict(),
                "shares": shares,
                "told": processes.told(f"by {processes.rank}"),
            },
            Path(folder) / f"{processes.rank}.pt",
        )


ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(nas.__file__).parents[1])}


def launcher(n, *arguments):
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", *arguments]


def launched(*arguments):
    return subprocess.run(launcher(2, *arguments), capture_output=True, text=True, timeout=300, check=False, env=ENV)


def test_the_mean_of_the_shares_is_the_whole(tmp_path):
    done = launched(__file__, str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone, model = trained(ALONE)
    assert first["loss"] == second["loss"] == pytest.approx(alone.task_loss, rel=1e-5)
    for name, expected in model.state_dict().items():
        assert torch.allclose(first["weights"][name], expected, atol=1e-5), name
    assert not torch.equal(model.state_dict()["0.weight"], network().state_dict()["0.weight"])
    assert first["told"] == second["told"] == "by 0"
    shares = torch.tensor([first["shares"], second["shares"]])  # (process, batch, image)
    assert torch.equal(shares.permute(1, 2, 0).reshape(2, 8), data()._targets[:16].view(2, 8))


def test_a_batch_that_cannot_be_shared_out_is_refused():
    two = Processes(count=2, local_count=2)
    two.check_batch_size(8)
    ALONE.check_batch_size(1)
    for batch_size in (7, 2):
        with pytest.raises(InputError, match=rf"training.batch_size {batch_size} cannot be shared out to 2 processes"):
            two.check_batch_size(batch_size)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Processes(1, 2, 1, 2).device("cuda") == "cuda:1"
    assert Processes(1, 2, 1, 2).device("cpu") == "cpu"
    assert ALONE.device("cuda:5") == "cuda:5"
    with pytest.raises(InputError, match="3 were started on a machine with 2"):
        Processes(1, 3, 1, 3).device("cuda")


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run.parent, tmp_path / "runs")
    return load_run(tmp_path / "runs" / tiny_run.name)


def retraining(run, *options):
    record = next(record for record in run.records if record.is_complete)
    return "-m", "nas", "retrain", str(run.path), "--candidate", record.id, *options


def scores(run):
    return [record.retrained for record in load_run(run.path).records if record.retrained]


def kept(run):
    return [path.read_bytes() for path in sorted((run.path / "weights").glob("*.retrained*.safetensors"))]


def test_a_shared_retraining_speaks_and_writes_once(run):
    done = launched(*retraining(run, "--epochs", "2"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert len(scores(run)) == len(kept(run)) == 1
    assert not list((run.path / "weights").glob("*.checkpoint"))


@pytest.mark.slow
def test_a_shared_retraining_goes_on_after_kill_9_to_the_same_weights(run, tmp_path):
    options = ("--epochs", "12", "--patience", "12", "--seeds", "2")
    untouched = tmp_path / "untouched"
    shutil.copytree(run.path.parent, untouched)
    killed = subprocess.Popen(launcher(2, *retraining(run, *options)), env=ENV, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((run.path / "weights").glob("*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(int(Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()[0]), signal.SIGKILL)
    killed.communicate()
    assert list((run.path / "weights").glob("*.checkpoint"))
    done = launched(*retraining(run, *options))
    assert done.returncode == 0, done.stderr
    whole = load_run(untouched / run.path.name)
    launched(*retraining(whole, *options))
    assert kept(run) == kept(whole)
    assert len(kept(run)) == 2
    assert scores(run) == scores(whole)
    assert len(scores(run)) == 1


def test_what_the_first_process_refuses_ends_them_all_with_one_error(run):
    done = launched(*retraining(run, "--set", "training.batch_size=5"))
    assert done.returncode != 0
    assert "training.batch_size 5 cannot be shared out to 2 processes" in done.stderr
    assert done.stderr.count("Traceback") == 1  # the launcher's own


if __name__ == "__main__":
    write_result(sys.argv[1])
