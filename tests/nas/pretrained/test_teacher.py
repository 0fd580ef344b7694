import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.graph.onnx_writer import write_onnx
from nas.data import FashionMnist, SyntheticFaces
from nas.data.base import Split
from nas.data.cache import cache_examples
from nas.data.normalization import Normalization
from nas.errors import InputError
from nas.exporters.onnx_file import ImageNetwork
from nas.pretrained.onnx_teacher import OnnxTeacher, external_files
from nas.pretrained.teacher import Teacher, TeacherOutputs, TeacherSpec
from nas.pretrained.teacher_form import ChannelOrder, FormedTeacher, OutputForm, TeacherForm
from nas.search.listener import SearchListener
from nas.tasks import Classification, Segmentation
from nas.torch_tools import load_weights, save_weights
from nas.training.scoring import predict
from nas.values.recipes import TrainingRecipe

pytestmark = pytest.mark.trains

SPEC = TeacherSpec("resnet", {"depth": 8, "width": 4}, TrainingRecipe(epochs=2, batch_size=8))


@pytest.fixture
def setting(tiny_config, make_setting):
    dataset = FashionMnist(tiny_config.parent / "data", n_train=40, n_validation=20)
    return make_setting(dataset, Classification(dataset.class_names))


class Heard(SearchListener):
    def __init__(self):
        self.messages, self.epochs = [], []

    def on_message(self, text):
        self.messages.append(text)

    def on_epoch(self, candidate, epoch):
        self.epochs.append((candidate, epoch.epoch))


def made(spec, setting, cache, listener=None):
    """Return a teacher, made, and its report."""
    listener = listener or SearchListener()
    teacher = Teacher(cache, setting, spec)
    teacher.make(listener)
    return teacher, teacher.report(listener)


def report(spec, setting, cache, listener=None):
    return made(spec, setting, cache, listener)[1]


def outputs(teacher, images):
    made = TeacherOutputs(teacher.cache, teacher.setting, teacher, images)
    made.make(SearchListener())
    return made.path


def test_it_is_trained_once_for_all_runs_that_agree(setting, cache):
    heard = Heard()
    teacher, again = Teacher(cache, setting, SPEC), Teacher(cache, setting, SPEC)
    assert (teacher.is_made, teacher.make(heard), teacher.is_made) == (False, True, True)
    assert heard.epochs == [("teacher", 1), ("teacher", 2)]
    assert heard.messages == ["Training the teacher (resnet, 2 epochs); kept for later runs."]
    found = teacher.report(heard)
    assert found.n_params == sum(p.numel() for p in SPEC.build(1, 10).parameters())
    assert 0 <= found.scores["accuracy"] <= 1
    assert again.make(heard) is False
    assert (again.path, again.report(heard), len(heard.epochs)) == (teacher.path, found, 2)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"data_fingerprint": "other"}, {"task_options": {"weight": 2}}, {"n_threads": 2}]
)
def test_another_setting_is_another_teacher(setting, cache, change):
    spec = dataclasses.replace(SPEC, recipe=TrainingRecipe(epochs=1, batch_size=8))
    first = Teacher(cache, setting, spec)
    assert Teacher(cache, dataclasses.replace(setting, **change), spec).path != first.path
    other = dataclasses.replace(spec, recipe=TrainingRecipe(epochs=1, batch_size=4))
    assert Teacher(cache, setting, other).path != first.path


def test_given_weights_are_taken_as_they_are(setting, cache, tmp_path):
    trained, expected = made(SPEC, setting, cache)
    trained.path.rename(tmp_path / "mine.safetensors")
    given = Teacher(cache, setting, dataclasses.replace(SPEC, weights=tmp_path / "mine.safetensors"))
    assert (given.is_made, given.make(SearchListener())) == (True, False)
    assert given.report(SearchListener()) == expected


@pytest.mark.parametrize("content", [None, b"", b"no weights of anything" * 10])
def test_weights_of_something_else_are_the_users_fault(setting, cache, tmp_path, content):
    path = tmp_path / "mine.safetensors"
    if content is None:
        other = TeacherSpec("resnet", {"depth": 8, "width": 6}, SPEC.recipe)
        path = made(other, setting, cache)[0].path
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="these weights are not of the teacher that is configured"):
        report(dataclasses.replace(SPEC, weights=path), setting, cache)


def test_weights_for_other_classes_are_refused_with_what_differs(setting, cache, tmp_path):
    save_weights(SPEC.build(1, 12), tmp_path / "mine.safetensors")
    differing = (
        r"classifier\.2\.weight has the shape \(12, 16\), not \(10, 16\); "
        r"classifier\.2\.bias has the shape \(12,\), not \(10,\)$"
    )
    with pytest.raises(InputError, match=differing):
        report(dataclasses.replace(SPEC, weights=tmp_path / "mine.safetensors"), setting, cache)


def test_weights_that_are_not_there_are_the_users_fault(setting, cache, tmp_path):
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        report(dataclasses.replace(SPEC, weights=tmp_path / "gone.safetensors"), setting, cache)


class Constant(nn.Module):
    """Gives the means of its images' pixels as logits of as many classes and of such a size as told."""

    def __init__(self, *shape, last=None):
        super().__init__()
        self.shape = shape
        self.last = last or nn.Identity()

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        logits = mean.view(-1, *(1 for _ in self.shape)) * torch.arange(1.0, self.shape[0] + 1).view(
            -1, *(1 for _ in self.shape[1:])
        )
        return self.last(logits.expand(-1, *self.shape))


def onnx_file(tmp_path, *shape, **options):
    write_onnx(Constant(*shape, **options).eval(), (1, 28, 28), tmp_path / "teacher.onnx")
    return tmp_path / "teacher.onnx"


def test_an_onnx_file_says_what_its_network_does_of_images_as_it_was_trained_with(setting, cache, tmp_path):
    path = onnx_file(tmp_path, 10)
    spec = TeacherSpec("onnx", {"path": path}, form=TeacherForm((0.25,), (0.5,)))
    teacher = Teacher(cache, setting, spec)
    assert (teacher.path, teacher.is_made) == (path, True)
    logits = np.load(outputs(teacher, setting.train))
    means = setting.train.load().images.float().mean(dim=(1, 2, 3)) / 255
    np.testing.assert_allclose(logits[:, 0], (means - 0.25) / 0.5, atol=2e-3)
    np.testing.assert_allclose(logits[:, 9], logits[:, 0] * 10, atol=2e-2)


def test_a_file_of_a_fixed_batch_takes_any(setting, tmp_path):
    path = onnx_file(tmp_path, 10)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, path)
    teacher = OnnxTeacher(1, 10, path=path)
    teacher.open()
    x = torch.randn(7, 1, 28, 28)
    expected = torch.cat([teacher(x[:3]), teacher(x[3:6]), teacher(x[6:])])
    assert teacher(x).shape == (7, 10)
    torch.testing.assert_close(teacher(x), expected)


def test_an_exported_reference_model_teaches_as_its_weights_do(setting, cache, tmp_path):
    model = SPEC.build(1, 10).eval()
    save_weights(model, tmp_path / "mine.safetensors")
    given = report(dataclasses.replace(SPEC, weights=tmp_path / "mine.safetensors"), setting, cache)
    write_onnx(ImageNetwork(model, setting.normalization).eval(), (1, 28, 28), tmp_path / "mine.onnx")
    exported = report(TeacherSpec("onnx", {"path": tmp_path / "mine.onnx"}), setting, cache)
    assert exported.scores == given.scores
    assert exported.n_params == pytest.approx(given.n_params, rel=0.1)  # normalisations are folded or not


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12,), "it knows 12 classes, the data has 10. It gives 12 for an image of 1 x 28 x 28 and must give 10$"),
        ((10, 28, 28), "its output for an image has 3 dimensions, not 1. It gives 10 x 28 x 28 for"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_with_what_differs(setting, cache, tmp_path, shape, message):
    spec = TeacherSpec("onnx", {"path": onnx_file(tmp_path, *shape)})
    with pytest.raises(InputError, match=message):
        report(spec, setting, cache)


def test_a_teacher_of_another_size_than_the_masks_is_refused(setting, cache, tmp_path):
    faces = SyntheticFaces(image_size=32, n_train=4, n_validation=2)
    train, validation = (cache_examples(cache, faces, split) for split in (Split.TRAIN, Split.VALIDATION))
    dense = dataclasses.replace(
        setting,
        train=train,
        validation=validation,
        normalization=Normalization.of(train.load().images),
        task=Segmentation(faces.class_names),
        in_channels=3,
        n_classes=len(faces.class_names),
    )
    write_onnx(Constant(8, 8, 8).eval(), (3, 32, 32), tmp_path / "small.onnx")
    with pytest.raises(InputError, match="its output is 8 x 8 pixels, the targets are 32 x 32. It gives 8 x 8 x 8"):
        report(TeacherSpec("onnx", {"path": tmp_path / "small.onnx"}), dense, cache)


def test_probabilities_are_refused(setting, cache, tmp_path):
    with pytest.raises(InputError, match="must give logits, it gives probabilities: write it without its softmax"):
        report(TeacherSpec("onnx", {"path": onnx_file(tmp_path, 10, last=nn.Softmax(dim=1))}), setting, cache)


def test_what_looks_like_probabilities_of_each_class_alone_is_told(setting, cache, tmp_path):
    heard = Heard()
    for last in (nn.Sigmoid(), None):
        spec = TeacherSpec("onnx", {"path": onnx_file(tmp_path, 10, last=last)})
        report(spec, setting, cache, heard)
    (message,) = heard.messages
    assert message.startswith(f"{tmp_path}/teacher.onnx: all that the teacher says lies between 0 and 1.")


def first_mean(setting):
    return float(setting.train.load().images[0].float().mean()) / 255


def test_logits_that_half_precision_cannot_hold_are_refused(setting, cache, tmp_path):
    path = onnx_file(tmp_path, 10)
    with pytest.raises(
        InputError, match=r"teacher\.onnx: the teacher's logits must lie within \+-65,504, got [\d,]{9,}\."
    ):
        report(TeacherSpec("onnx", {"path": path}, form=TeacherForm((0.0,), (1e-6,))), setting, cache)
    not_the_first_image = TeacherForm((first_mean(setting),), (1e-6,))
    late = TeacherSpec("onnx", {"path": path}, form=not_the_first_image)
    teacher, _ = made(late, setting, cache)
    with pytest.raises(InputError, match=r"teacher\.onnx: the teacher's logits must lie within"):
        outputs(teacher, setting.train)


class Root(nn.Module):
    def forward(self, x):
        return (x + 1).sqrt()


def test_outputs_that_are_no_numbers_are_refused(setting, cache, tmp_path):
    path = onnx_file(tmp_path, 10, last=Root())
    with pytest.raises(InputError, match=r"teacher\.onnx: the teacher must give finite logits, it gives NaN"):
        report(TeacherSpec("onnx", {"path": path}, form=TeacherForm((1.0,), (0.1,))), setting, cache)
    late = TeacherSpec("onnx", {"path": path}, form=TeacherForm((first_mean(setting),), (0.01,)))
    with pytest.raises(
        InputError, match=r"teacher\.onnx: the teacher cannot be scored on the validation split: .* NaN"
    ):
        report(late, setting, cache)


def test_weights_beside_an_onnx_file_are_a_part_of_it(setting, cache, tmp_path):
    model = SPEC.build(1, 10).eval()
    write_onnx(ImageNetwork(model, setting.normalization).eval(), (1, 28, 28), tmp_path / "whole.onnx")
    assert external_files(tmp_path / "whole.onnx") == ()
    path = tmp_path / "mine.onnx"
    onnx.save(
        onnx.load(tmp_path / "whole.onnx"), path, save_as_external_data=True, location="mine.data", size_threshold=100
    )
    assert external_files(path) == (tmp_path / "mine.data",)
    spec = TeacherSpec("onnx", {"path": path})
    before = outputs(Teacher(cache, setting, spec), setting.train)
    values = np.fromfile(tmp_path / "mine.data", np.float32)
    (values * np.float32(0.9)).tofile(tmp_path / "mine.data")
    assert outputs(Teacher(cache, setting, spec), setting.train) != before


def test_a_file_for_other_images_is_the_users_fault(setting, cache, tmp_path):
    write_onnx(Constant(10).eval(), (3, 28, 28), tmp_path / "rgb.onnx")
    with pytest.raises(
        InputError, match=r"rgb\.onnx takes 3 x 28 x 28, the images are 1 x 28 x 28: write the file for"
    ):
        report(TeacherSpec("onnx", {"path": tmp_path / "rgb.onnx"}), setting, cache)
    with pytest.raises(InputError, match=r"teacher\.mean must have a value for each channel: the images have 1, got 3"):
        spec = TeacherSpec("onnx", {"path": tmp_path / "rgb.onnx"}, form=TeacherForm((0.5,) * 3, (1.0,) * 3))
        report(spec, setting, cache)


@pytest.mark.parametrize("content", [None, b"no network"])
def test_a_file_that_is_no_onnx_is_the_users_fault(setting, cache, tmp_path, content):
    path = tmp_path / "mine.onnx"
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.onnx cannot be read as an ONNX file: "):
        report(TeacherSpec("onnx", {"path": path}), setting, cache)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALIDATION])
def test_logits_are_the_models_for_every_image_in_order(setting, cache, split):
    teacher, _ = made(SPEC, setting, cache)
    examples = setting.train if split is Split.TRAIN else setting.validation
    path = outputs(teacher, examples)
    logits = np.load(path)
    images = examples.load().images
    model = SPEC.build(1, 10)
    load_weights(model, teacher.path)
    expected = torch.cat(list(predict(model.eval(), images, setting.normalization, batch_size=7)))
    assert (logits.shape, logits.dtype) == ((len(images), 10), np.float16)
    np.testing.assert_allclose(logits, expected, atol=5e-3, rtol=5e-3)
    before = path.stat().st_mtime_ns
    assert outputs(teacher, examples).stat().st_mtime_ns == before


def faces_setting(setting, cache, n_classes=8):
    faces = SyntheticFaces(image_size=32, n_train=4, n_validation=2)
    train, validation = (cache_examples(cache, faces, split) for split in (Split.TRAIN, Split.VALIDATION))
    return dataclasses.replace(
        setting,
        train=train,
        validation=validation,
        normalization=Normalization.of(train.load().images),
        task=Segmentation(faces.class_names[:n_classes]),
        in_channels=3,
        n_classes=n_classes,
    )


class Colours(nn.Module):
    """Gives the pixels of its images, each channel so many times."""

    def __init__(self, in_channels=3, n_classes=8, *, times: int = 3):
        super().__init__()
        self.times = times
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (self.scale * x).repeat(1, self.times, 1, 1)[:, :8]


def colours(in_channels, n_classes, times: int = 3):
    return Colours(in_channels, n_classes, times=times)


FORM = TeacherForm((0.1, 0.2, 0.3), (0.5, 0.25, 1.0), ChannelOrder.BGR)


def test_a_teacher_gets_images_as_it_was_trained_with(setting, cache, tmp_path):
    dense = faces_setting(setting, cache)
    write_onnx(Colours().eval(), (3, 32, 32), tmp_path / "bgr.onnx")
    save_weights(Colours(), tmp_path / "bgr.safetensors")
    own = TeacherSpec(f"{__name__}:colours", {"times": 3}, weights=tmp_path / "bgr.safetensors", form=FORM)
    images = dense.train.load().images
    bgr = images.flip(1).numpy() / 255
    expected = (bgr - np.array(FORM.mean).reshape(3, 1, 1)) / np.array(FORM.std).reshape(3, 1, 1)
    for spec in (TeacherSpec("onnx", {"path": tmp_path / "bgr.onnx"}, form=FORM), own):
        model = Teacher(cache, dense, spec).load()
        (logits,) = predict(model, images, dense.normalization)
        np.testing.assert_allclose(logits[:, :3], expected, atol=1e-5)
        assert Teacher(cache, dense, spec).report(SearchListener()).n_params == 1
    plain = dataclasses.replace(own, form=TeacherForm())
    assert Teacher(cache, dense, plain).outputs_depend_on != Teacher(cache, dense, own).outputs_depend_on


def formed(output, values, n_classes=2):
    """Return the logits that a network of one channel is taken to give."""
    constant = nn.Module()
    constant.forward = lambda images: values
    form = TeacherForm(output=output)
    normalization = Normalization((0.0,) * 3, (1.0,) * 3)
    sizes = {"in_channels": 3, "n_classes": n_classes}
    return FormedTeacher(constant, form, normalization, **sizes, source="mine.onnx")(torch.zeros(len(values), 3, 2, 2))


def test_one_channel_tells_two_classes_apart():
    probabilities = torch.tensor([0.0, 0.1, 0.5, 0.999, 1.0]).view(-1, 1, 1, 1)
    logits = formed(OutputForm.SIGMOID, probabilities)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1:], probabilities, atol=2e-6, rtol=0)
    assert logits.isfinite().all()
    own = torch.tensor([-3.0, 2.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(formed(OutputForm.ONE_LOGIT, own), torch.cat([0 * own, own], dim=1))


@pytest.mark.parametrize(
    ("output", "shape", "n_classes", "message"),
    [
        (
            OutputForm.SIGMOID,
            (2, 1, 4, 4),
            2,
            r"mine\.onnx: .*must lie between 0 and 1, .* gives 1\.5 .. 1\.5",
        ),
        (OutputForm.SIGMOID, (2, 3, 4, 4), 2, r"sigmoid needs one channel, the network gives 3 x 4 x 4"),
        (OutputForm.ONE_LOGIT, (2, 2, 4, 4), 2, r"one_logit needs one channel, the network gives 2 x 4 x 4"),
        (OutputForm.ONE_LOGIT, (2, 1, 4, 4), 8, r"one_logit tells two classes apart, the data has 8"),
    ],
)
def test_an_output_of_another_form_than_told_is_refused(output, shape, n_classes, message):
    with pytest.raises(InputError, match=message):
        formed(output, torch.full(shape, 1.5), n_classes)


def test_bgr_is_of_three_channels(setting, cache, tmp_path):
    spec = TeacherSpec("onnx", {"path": onnx_file(tmp_path, 10)}, form=TeacherForm(channel_order=ChannelOrder.BGR))
    with pytest.raises(InputError, match=r"teacher\.channel_order: bgr is of images with 3 channels, these have 1"):
        report(spec, setting, cache)


def test_a_file_with_weights_among_its_inputs_is_opened_silently(tmp_path, capfd):
    model = onnx.load(onnx_file(tmp_path, 10))
    (weight, *_) = model.graph.initializer
    value = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    model.graph.input.append(value)  # as exporters of ONNX's first years wrote it
    onnx.save(model, tmp_path / "old.onnx")
    teacher = OnnxTeacher(1, 10, path=tmp_path / "old.onnx")
    teacher.open()
    assert teacher(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert capfd.readouterr() == ("", "")
