"""A new user's road: own data, `nas init`, search, retrain, export."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import nas
from nas.cli.app import app
from nas.config import load_config
from nas.data import DATASETS, Split
from nas.errors import InputError

QUICK = [
    "controller={kind: random, n_candidates: 2, batch_size: 2}",
    "training.epochs=1",
    "training.device=cpu",
    "teacher.recipe.epochs=1",
    "teacher.width=4",
    "devices.target={kind: fake}",
    "tensorboard=false",
]
SMALL_CELLS = ["pretraining.epochs=1", "search_space={kind: segmentation_cell, n_cells: 1, n_branches: 1}"]
SMALL_NETWORKS = ["teacher.depth=8", "search_space={kind: nasbench201, width: 4, cells_per_stage: 1}"]


def command(*arguments: str) -> str:
    """Run a command; an error of ours passes through."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def discs(root: Path, n: int = 12) -> Path:
    """Write bright discs on dark ground and their masks of 0 and 255, in folders without splits."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows, columns = np.mgrid[:32, :32]
    for index in range(n):
        row, column, radius = rng.uniform(10, 22), rng.uniform(10, 22), rng.uniform(6, 10)
        mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image = np.where(mask[..., None], 200, 60) + rng.normal(0, 10, (32, 32, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{index}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"{index}_mask.png")
    return root


def shades() -> list[tuple[str, np.ndarray]]:
    """Return images of two classes that their brightness tells."""
    rng = np.random.default_rng(0)
    return [
        (name, (level + rng.integers(0, 40, (16, 16, 3))).astype(np.uint8))
        for name, level in (("dark", 20), ("light", 180))
        for _ in range(8)
    ]


def class_folders(root: Path) -> Path:
    for index, (name, pixels) in enumerate(shades()):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name / f"{index}.webp", lossless=True)
    return root


def parquet_file(root: Path) -> Path:
    root.mkdir()
    images, labels = [], []
    for name, pixels in shades():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
        labels.append(name)
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "category": labels}), root / "shades.parquet")
    return root / "shades.parquet"


def walk(data: Path, folder: Path, *overrides: str) -> Path:
    """Go the whole road; return the exported file."""
    config = folder / "mine.yaml"
    output = command("init", "--data", str(data), "--output", str(config))
    assert output.splitlines()[-1] == f"{config}: written. Look through it, then: nas search {config}"
    told = io.StringIO()
    console = Console(file=told, width=500)
    run = nas.run_search(config, folder / "run", overrides=[*QUICK, *overrides], console=console)
    assert told.getvalue().splitlines()[0] == output.splitlines()[0]  # the splits
    assert told.getvalue().splitlines()[1].startswith("Images ")  # the classes
    assert run.counts() == {"complete": 2}
    best = nas.retrain(run.path, run.front[0].id, epochs=1)
    assert best.retrained
    return nas.export(run.path, best.id)


def test_from_images_and_masks_to_an_exported_network(tmp_path):
    assert walk(discs(tmp_path / "discs"), tmp_path, *SMALL_CELLS).stat().st_size > 1000


@pytest.mark.slow
def test_from_folders_of_classes(tmp_path):
    assert walk(class_folders(tmp_path / "shades"), tmp_path, *SMALL_NETWORKS).stat().st_size > 1000


@pytest.mark.slow
def test_from_a_parquet_file(tmp_path):
    assert walk(parquet_file(tmp_path / "data"), tmp_path, *SMALL_NETWORKS).stat().st_size > 1000


@pytest.mark.parametrize(
    ("write", "kind", "options"),
    [
        (class_folders, "image_folder", {"images": "{class}"}),
        (
            parquet_file,
            "parquet",
            {"train_file": "shades.parquet", "label_column": "category", "image_column": "image"},
        ),
    ],
)
def test_classes_are_found_and_read(tmp_path, write, kind, options):
    """The fast sibling of the two roads above."""
    config = tmp_path / "x.yaml"
    output = command("init", "--data", str(write(tmp_path / "data")), "--output", str(config))
    assert "Images of each class, training / validation: dark 6 / 1, light 6 / 1." in output.splitlines()
    data = load_config(config).data
    assert data.kind == kind
    assert options.items() <= data.options.items()
    dataset = DATASETS[kind](**data.options)
    assert dataset.class_names == ("dark", "light")
    examples = dataset.load(Split.TEST)
    assert ((examples.images.float().mean(dim=(1, 2, 3)) > 128).long() == examples.targets).all()
    assert len(examples) == 2


@pytest.mark.realdata
@pytest.mark.skipif("NAS_DATA_ROOT" not in os.environ, reason="NAS_DATA_ROOT is not set")
def test_from_a_cut_of_camvid(tmp_path):
    camvid = Path(os.environ["NAS_DATA_ROOT"]) / "camvid"
    for split, n in (("train", 8), ("val", 4), ("test", 3)):
        for image in sorted((camvid / split / "images").iterdir())[:n]:
            for part, name in (("images", image.name), ("masks", f"{image.stem}.png")):
                (tmp_path / "cut" / split / part).mkdir(parents=True, exist_ok=True)
                shutil.copy(camvid / split / part / name, tmp_path / "cut" / split / part)
    assert walk(tmp_path / "cut", tmp_path, "data.image_size=[32, 48]", *SMALL_CELLS).stat().st_size > 1000


def test_what_is_written_says_what_was_found(tmp_path):
    config = tmp_path / "x.yaml"
    output = command(
        "init", "--data", str(discs(tmp_path / "my discs")), "--device", "onnxruntime", "--output", str(config)
    )
    assert output.splitlines()[:2] == [
        "Data: 9 for training (images/), 2 for validation (0.2 of images/, chosen by seed 0); "
        "1 for the test (0.1 of images/, chosen by seed 0).",
        "Images that show each class, training / validation, and its share of the training pixels: "
        + output.splitlines()[1].rpartition("pixels: ")[2],
    ]
    settings = load_config(config)
    assert settings.name == "my_discs"
    assert settings.devices["target"].kind == "onnxruntime"
    assert {key: value for key, value in settings.data.options.items() if key != "root"} == {
        "images": "images",
        "masks": "masks/{name}_mask",
        "class_names": ("background", "foreground"),
        "mask_values": (0, 255),
        "image_size": (32, 32),
        "validation_fraction": 0.2,
        "test_fraction": 0.1,
        "ignore_index": None,
        "mask_colors": None,
        "ignore_color": None,
        "seed": 0,
    }


@pytest.mark.parametrize("name", ["no", "010", "été été", "-x-", "..."])
def test_any_folder_gives_a_name(tmp_path, name):
    folder = discs(tmp_path / name / "..." / name, n=4) if name != "..." else discs(tmp_path / "_._", n=4)
    command("init", "--data", str(folder), "--output", str(tmp_path / "x.yaml"))
    assert load_config(tmp_path / "x.yaml").name


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "x.yaml").write_text("mine")
    data, output = str(discs(tmp_path / "discs", n=4)), str(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"x.yaml is there already; name another file, or pass --overwrite"):
        command("init", "--data", data, "--output", output)
    assert (tmp_path / "x.yaml").read_text() == "mine"
    command("init", "--data", data, "--output", output, "--overwrite")
    assert load_config(output).name == "discs"


def test_faults_leave_no_file(tmp_path):
    data = discs(tmp_path / "discs", n=4)
    (data / "images" / "0.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match="0.jpg: cannot be read as an image"):
        command("init", "--data", str(data), "--output", str(tmp_path / "x.yaml"))
    assert not list(tmp_path.glob("*.yaml"))
    with pytest.raises(InputError, match="--device: unknown kind 'torch_gpu'. Did you mean 'torch_cpu'"):
        command("init", "--data", str(data), "--device", "torch_gpu")
    with pytest.raises(InputError, match="gone: no such folder or file"):
        command("init", "--data", str(tmp_path / "gone"))


def test_validate_looks_at_the_data_when_it_is_told_to(tmp_path):
    config, data = tmp_path / "x.yaml", discs(tmp_path / "discs", n=6)
    command("init", "--data", str(data), "--output", str(config))
    (data / "masks" / "0_mask.png").unlink()
    assert command("validate", str(config)).splitlines()[-1] == (
        "The files of the data were not looked at: --data does that."
    )
    with pytest.raises(InputError, match=r"0.jpg: has no mask"):
        command("validate", str(config), "--data")
    (data / "images" / "0.jpg").unlink()
    lines = command("validate", str(config), "--data").splitlines()
    assert lines[1].startswith("Data: 4 for training (images/), 1 for validation")
    assert lines[-1].startswith("The validation split has 1 image: the standard error of a mean IoU is about 0.150")
