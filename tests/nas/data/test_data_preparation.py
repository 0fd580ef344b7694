"""Published data sets in small: their layouts, what is made of them, and what is wrong with them."""

import numpy as np
import pytest
import yaml
from PIL import Image

from nas import cli
from nas.data import ImageMaskFolder, Split
from nas.data.preparation import prepare
from nas.data.published_layouts import PUBLISHED_LAYOUTS
from nas.errors import DataError, InputError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def grey_image(value, height=4, width=4):
    return np.full((height, width, 3), value)


def celebamask_hq(root):
    """Four faces: their index, the CelebA index that gives the split, and their parts."""
    rows = [("idx", "orig_idx", "orig_file")]
    for index, original in ((0, 162_770), (1, 162_771), (2, 182_637), (2001, 182_638)):
        rows.append((index, original, f"{original + 1:06d}.jpg"))
        save(root / "CelebA-HQ-img" / f"{index}.jpg", grey_image(index % 251, 8, 8))
        folder = root / "CelebAMask-HQ-mask-anno" / str(index // 2000)
        parts = {name: np.zeros((4, 4, 3)) for name in ("skin", "l_eye", "hair")}
        parts["skin"][:3] = 255
        parts["l_eye"][1, 1] = 255
        parts["hair"][0, :2] = 255
        for name, pixels in parts.items():
            save(folder / f"{index:05d}_{name}.png", pixels)
    text = "\n".join(" ".join(str(field).ljust(12) for field in row) for row in rows)
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text(f"{text}\n")


def eg1800(root):
    for split, names in (("train", ("00001", "00003")), ("test", ("00002",))):
        (root).mkdir(exist_ok=True)
        (root / f"eg1800_{split}.txt").write_text("".join(f"{name}.png\n" for name in names))
        for name in names:
            save(root / "Images" / f"{name}.png", grey_image(int(name)))
            save(root / "Labels" / f"{name}.png", [[0, 1, 1, 0]] * 3 + [[2, 1, 255, 0]])
    save(root / "Labels" / "00003.png", [[0, 255, 255, 128]] * 4)
    save(root / "Labels" / "00009.png", [[0]])  # as published: labels without an image


def helen(root):
    root.mkdir(exist_ok=True)
    for file, names in (("exemplars", ("10_1", "11_2")), ("tuning", ("12_1",)), ("testing", ("13_1",))):
        (root / f"{file}.txt").write_text("".join(f"{i} , {name}\n" for i, name in enumerate(names, 1)) + "\n")
        for name in names:
            save(root / "images" / f"{name}.jpg", grey_image(7))
            for label in range(11):
                probability = np.zeros((4, 4))
                probability[label % 4, label // 4] = 200
                probability[:, 3] = 20 * (label == 1) + 30 * (label == 10)
                save(root / "labels" / name / f"{name}_lbl{label:02d}.png", probability)


MAKERS = {"celebamask_hq": celebamask_hq, "eg1800": eg1800, "helen": helen}
MASKS = {
    "celebamask_hq": [[13, 13, 1, 1], [1, 4, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]],
    "eg1800": [[0, 1, 1, 0]] * 3 + [[0, 1, 0, 0]],
    "helen": [[0, 4, 8, 10], [1, 5, 9, 10], [2, 6, 10, 10], [3, 7, 0, 10]],
}
SPLITS = {
    "celebamask_hq": {"train": ["0.jpg"], "val": ["1.jpg", "2.jpg"], "test": ["2001.jpg"]},
    "eg1800": {"train": ["00001.png", "00003.png"], "test": ["00002.png"]},
    "helen": {"train": ["10_1.jpg", "11_2.jpg"], "val": ["12_1.jpg"], "test": ["13_1.jpg"]},
}


def files_under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=PUBLISHED_LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def source(layout, tmp_path):
    MAKERS[layout](tmp_path / "source")
    return tmp_path / "source"


def test_a_published_folder_becomes_one_that_can_be_trained_on(layout, source, tmp_path):
    progress = []
    prepared = prepare(layout, source, tmp_path / "out", on_progress=lambda *numbers: progress.append(numbers))
    n = sum(prepared.n_pairs.values())
    assert progress == [(i, n) for i in range(1, n + 1)]
    for split, names in SPLITS[layout].items():
        assert sorted(path.name for path in (tmp_path / "out" / split / "images").iterdir()) == names
        assert prepared.n_pairs[split] == len(names)
    first = SPLITS[layout]["train"][0].partition(".")[0]
    mask = np.asarray(Image.open(tmp_path / "out" / "train" / "masks" / f"{first}.png"))
    assert mask.tolist() == MASKS[layout]
    sections = yaml.safe_load((tmp_path / "out" / "sections.yaml").read_text())
    assert sections == yaml.safe_load(prepared.sections)
    options = {key: value for key, value in sections["data"].items() if key != "kind"} | {"image_size": 4}
    data = ImageMaskFolder(**options)
    assert data.class_names == PUBLISHED_LAYOUTS[layout].class_names
    if layout != "celebamask_hq":  # which has one training image here, and a validation folder
        data.check()
    assert len(data.load(Split.TEST)) == 1
    assert sections["task"].get("flip_pairs", []) == [list(pair) for pair in PUBLISHED_LAYOUTS[layout].flip_pairs]
    assert list(tmp_path.glob(".*")) == []


def test_images_of_the_masks_size_are_copied_and_others_resized(tmp_path):
    eg1800(tmp_path / "eg")
    prepare("eg1800", tmp_path / "eg", tmp_path / "out")
    copied = (tmp_path / "out" / "train" / "images" / "00001.png").read_bytes()
    assert copied == (tmp_path / "eg" / "Images" / "00001.png").read_bytes()
    celebamask_hq(tmp_path / "celeba")
    prepare("celebamask_hq", tmp_path / "celeba", tmp_path / "faces")
    with Image.open(tmp_path / "faces" / "test" / "images" / "2001.jpg") as image:
        assert image.size == (4, 4)


def test_an_image_on_its_side_fits_its_upright_mask(tmp_path):
    eg1800(tmp_path / "eg")
    upright = np.zeros((6, 4, 3), dtype=np.uint8)
    upright[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("00001", "00003"):
        turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
        turned.save(tmp_path / "eg" / "Images" / f"{name}.png", exif=exif)
        save(tmp_path / "eg" / "Labels" / f"{name}.png", upright[..., 0] // 255)
    prepare("eg1800", tmp_path / "eg", tmp_path / "out")
    data = ImageMaskFolder(tmp_path / "out", class_names=("background", "portrait"), image_size=(6, 4))
    examples = data.load(Split.TRAIN)
    assert ((examples.images[:, 0] > 127) == (examples.targets == 1)).all()


def test_white_portraits_without_a_1_are_portraits(tmp_path):
    eg1800(tmp_path / "source")
    prepare("eg1800", tmp_path / "source", tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out" / "train" / "masks" / "00003.png"))
    assert mask.tolist() == [[0, 1, 1, 0]] * 4


def test_all_that_is_broken_is_listed_and_nothing_appears(tmp_path):
    source = tmp_path / "source"
    helen(source)
    (source / "images" / "10_1.jpg").unlink()
    save(source / "images" / "11_2.jpg", grey_image(0, 4, 5))
    (source / "labels" / "12_1" / "12_1_lbl03.png").write_bytes(b"broken")
    save(source / "labels" / "12_1" / "12_1_lbl04.png", np.zeros((3, 4)))
    with (source / "testing.txt").open("a") as file:
        file.write("no comma\n1 , 13_1\n")
    with pytest.raises(DataError) as caught:
        prepare("helen", source, tmp_path / "out")
    missing, *others = caught.value.faults[2:]
    assert caught.value.faults[:2] == (
        f"{source}/testing.txt: line 3: must be a number, a comma and a name, got 'no comma'",
        f"{source}/images/13_1.jpg: is listed twice for test",
    )
    assert missing.startswith(f"{source}/images/10_1.jpg: cannot be read as an image")
    assert others == [
        f"{source}/images/11_2.jpg: is 5 x 4 pixels, its mask 4 x 4: not the same picture",
        f"{source}/labels/12_1/12_1_lbl03.png: cannot be read as an image (not an image)",
        f"{source}/labels/12_1/12_1_lbl04.png: is 4 x 3 pixels, 12_1_lbl00.png is 4 x 4 pixels",
    ]
    assert not (tmp_path / "out").exists()


def test_faults_of_celebamask_hq(tmp_path):
    celebamask_hq(tmp_path)
    for path in (tmp_path / "CelebAMask-HQ-mask-anno" / "1").iterdir():
        path.unlink()
    with (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").open("a") as file:
        file.write("x 1 y\n")
    with pytest.raises(DataError) as caught:
        prepare("celebamask_hq", tmp_path, tmp_path / "out")
    assert caught.value.faults == (
        f"{tmp_path}/CelebA-HQ-to-CelebA-mapping.txt: line 6: must start with two integers, got 'x 1 y'",
        f"{tmp_path}/CelebAMask-HQ-mask-anno/1/02001_*.png: no part of this face is there",
    )


def test_a_folder_without_the_lists(layout, tmp_path):
    with pytest.raises(DataError, match=r"\.txt: cannot be read \(No such file or directory\)"):
        prepare(layout, tmp_path, tmp_path / "out")


def test_after_a_repair_only_what_is_missing_is_done(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    eg1800(source)
    repaired = (source / "Images" / "00003.png").read_bytes()
    (source / "Images" / "00003.png").write_bytes(b"broken")
    with pytest.raises(DataError):
        prepare("eg1800", source, out)
    kept = tmp_path / ".out.partial" / "train" / "masks" / "00001.png"
    kept.write_bytes(b"kept")
    (source / "Images" / "00003.png").write_bytes(repaired)
    prepare("eg1800", source, out)
    assert (out / "train" / "masks" / "00001.png").read_bytes() == b"kept"
    assert (out / "train" / "masks" / "00003.png").exists()


def test_what_another_call_left_is_not_mixed_in(tmp_path):
    eg1800(tmp_path / "source")
    (tmp_path / ".out.partial" / "train" / "masks").mkdir(parents=True)
    (tmp_path / ".out.partial" / "train" / "masks" / "00001.png").write_bytes(b"of something else")
    prepare("eg1800", tmp_path / "source", tmp_path / "out")
    assert np.asarray(Image.open(tmp_path / "out" / "train" / "masks" / "00001.png")).tolist() == MASKS["eg1800"]


def test_a_folder_that_is_there_is_replaced_only_when_asked_and_only_if_it_was_prepared(tmp_path):
    eg1800(tmp_path / "source")
    prepare("eg1800", tmp_path / "source", tmp_path / "out")
    whole = files_under(tmp_path / "out")
    with pytest.raises(InputError, match=r"^--output: .*out is there already; pass --overwrite to replace it$"):
        prepare("eg1800", tmp_path / "source", tmp_path / "out")
    (tmp_path / "out" / "test" / "masks" / "00002.png").unlink()
    prepare("eg1800", tmp_path / "source", tmp_path / "out", overwrite=True)
    assert files_under(tmp_path / "out") == whole
    with pytest.raises(InputError, match="name another folder"):
        prepare("eg1800", tmp_path / "source", tmp_path / "source", overwrite=True)
    assert (tmp_path / "source" / "eg1800_train.txt").is_file()


def test_the_command_prints_the_sections(tmp_path, capsys, monkeypatch):
    helen(tmp_path / "source")
    arguments = ["nas", "data", "prepare", "helen", "--source", str(tmp_path / "source"), "--output"]
    monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    head, _, sections = capsys.readouterr().out.partition("\n\n")
    assert head == f"{tmp_path}/out: 2 train, 1 val, 1 test. For the configuration:"
    assert yaml.safe_load(sections)["task"]["flip_pairs"][1] == ["left_eye", "right_eye"]


def test_an_unknown_data_set_is_refused_with_the_known_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["nas", "data", "prepare", "x", "--source", "a", "--output", str(tmp_path / "b")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "'x' is no data set that can be prepared; known: celebamask_hq, eg1800, helen" in capsys.readouterr().err
