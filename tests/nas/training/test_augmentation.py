import numpy as np
import pytest
import torch

from nas.tasks import Classification, Segmentation
from nas.tasks.mirroring import named_pairs
from nas.torch_tools import no_waiting
from nas.training.augmentation import Augmentation, AugmentationDraw

NAMES = ("background", "left_eye", "right_eye")
EYES = Segmentation(NAMES, 255, flip_pairs=(("left_eye", "right_eye"),))
WITHOUT_IGNORED = Segmentation(NAMES, flip_pairs=(("left_eye", "right_eye"),))


def drawn(n=1, *, flipped=False, scale=1.0, centre=(0.0, 0.0), colour=(1.0, 1.0, 1.0)):
    """Return the same draw for `n` images."""
    return AugmentationDraw(
        torch.full((n,), flipped), torch.full((n,), scale), torch.tensor([centre] * n), torch.tensor([colour] * n)
    )


def batch(n=4, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 3, (n, size, size), generator=generator, dtype=torch.uint8)
    masks[:, 0, 0] = 255
    return images, masks, torch.randn(n, 3, size, size, generator=generator)


def test_a_flip_mirrors_all_three_and_swaps_the_classes_of_pairs():
    images, masks, logits = batch()
    draw = drawn(4)
    draw.is_flipped[1] = True
    got = Augmentation(flip=True).apply(images, masks, logits, draw, EYES)
    for before, after in zip((images, masks, logits), got, strict=True):
        assert torch.equal(after[[0, 2, 3]], before[[0, 2, 3]])
        assert after.dtype == before.dtype
    swap = {0: 0, 1: 2, 2: 1, 255: 255}
    assert torch.equal(got[0][1], images[1].flip(-1))
    assert got[1][1].tolist() == [[swap[value] for value in reversed(row)] for row in masks[1].tolist()]
    for channel, other in ((0, 0), (1, 2), (2, 1)):
        assert torch.equal(got[2][1, channel], logits[1, other].flip(-1))


def test_a_flip_of_classification_swaps_targets_and_logits():
    task = Classification(("left_turn", "right_turn", "ahead"), flip_pairs=(("right_turn", "left_turn"),))
    images, targets, logits = batch(3)[0], torch.tensor([0, 1, 2]), torch.arange(9.0).view(3, 3)
    got = Augmentation(flip=True).apply(images, targets, logits, drawn(3, flipped=True), task)
    assert got[1].tolist() == [1, 0, 2]
    assert got[2].tolist() == [[1, 0, 2], [4, 3, 5], [7, 6, 8]]


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (-1, 3), (0, -2)])
def test_a_shift_moves_by_whole_pixels_and_repeats_the_edge(dx, dy):
    images, masks, logits = batch()
    augmentation = Augmentation(shift=0.5)
    draw = drawn(4, centre=(2 * dx / 6 + 0.01, 2 * dy / 6))  # the 0.01 is rounded away
    got = augmentation.apply(images, masks, logits, draw, EYES)
    rows, columns = np.arange(6) + dy, np.arange(6) + dx
    there = np.ix_(rows.clip(0, 5), columns.clip(0, 5))
    np.testing.assert_array_equal(got[0], images.numpy()[:, :, *there])
    np.testing.assert_allclose(got[2], logits.numpy()[:, :, *there], atol=1e-5)
    outside = ((rows < 0) | (rows > 5))[:, None] | ((columns < 0) | (columns > 5))[None]
    expected = np.where(outside, 255, masks.numpy()[:, *there])
    np.testing.assert_array_equal(got[1], expected)
    without = augmentation.apply(images, masks, None, draw, WITHOUT_IGNORED)
    np.testing.assert_array_equal(without[1], masks.numpy()[:, *there])
    assert without[2] is None


def test_twice_the_scale_shows_the_middle_half_at_twice_its_size():
    mask = torch.arange(16, dtype=torch.uint8).view(1, 4, 4)
    images = mask[:, None].repeat(1, 3, 1, 1) * 16
    moved, moved_mask, logits = Augmentation(scale=(2.0, 2.0)).apply(
        images, mask, mask[:, None].half(), drawn(scale=2.0), Segmentation([str(i) for i in range(16)])
    )
    assert moved_mask[0].tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [9, 9, 10, 10], [9, 9, 10, 10]]
    # the second row of the result lies at 1.25 from the top, between the rows that start with 4 and 8
    assert logits[0, 0].tolist()[1] == [5.75, 6.25, 6.75, 7.25]
    assert moved[0, 2].tolist()[1] == [92, 100, 108, 116]
    assert moved.dtype == torch.uint8


def test_half_the_scale_leaves_a_border_that_is_ignored():
    mask = torch.ones(1, 8, 8, dtype=torch.uint8)
    _, small, _ = Augmentation(scale=(0.5, 0.5)).apply(batch(1, 8)[0], mask, None, drawn(scale=0.5), EYES)
    expected = torch.full((8, 8), 255)
    expected[2:6, 2:6] = 1
    assert small[0].tolist() == expected.tolist()


def test_targets_of_whole_images_and_their_logits_do_not_move():
    images, targets, logits = batch(3)[0], torch.tensor([0, 1, 2]), torch.randn(3, 4)
    got = Augmentation(shift=0.5).apply(
        images, targets, logits, drawn(3, centre=(1.0, 1.0)), Classification(("a", "b", "c", "d"))
    )
    assert got[1] is targets
    assert got[2] is logits


def test_colours_change_images_alone_by_the_formula():
    images, masks, logits = batch(2)
    factors = (1.2, 0.5, 0.8)
    got = Augmentation(brightness=0.5).apply(images, masks, logits, drawn(2, colour=factors), EYES)
    pixels = images.numpy().astype(np.float64) * factors[0]
    for index in range(2):
        mean = pixels[index].mean()
        pixels[index] = mean + factors[1] * (pixels[index] - mean)
        grey = pixels[index].mean(axis=0)
        pixels[index] = grey + factors[2] * (pixels[index] - grey)
    assert np.abs(got[0].numpy() - pixels.clip(0, 255)).max() <= 0.501
    assert got[1] is masks
    assert got[2] is logits


def test_draws_come_from_the_generator_alone_and_keep_their_bounds():
    augmentation = Augmentation(flip=True, scale=(0.5, 2.0), shift=0.125, brightness=0.2, contrast=0.3)
    first, again = (augmentation.draw(4000, torch.Generator().manual_seed(7)) for _ in range(2))
    for name in ("is_flipped", "scale", "centre", "colour"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert first.is_flipped.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert 0.5 <= first.scale.min() < 0.51
    assert 1.99 < first.scale.max() <= 2.0
    # what is cut from a larger image lies within it, but for the shift
    assert bool((first.centre.abs() <= ((1 - 1 / first.scale).abs() + 0.25)[:, None] + 1e-6).all())
    low, high = first.colour.amin(dim=0), first.colour.amax(dim=0)
    torch.testing.assert_close(low, torch.tensor([0.8, 0.7, 1.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(high, torch.tensor([1.2, 1.3, 1.0]), atol=1e-3, rtol=0)


def test_without_options_nothing_changes():
    given = batch()
    augmentation = Augmentation()
    draw = augmentation.draw(4, torch.Generator().manual_seed(0))
    assert all(a is b for a, b in zip(augmentation.apply(*given, draw, EYES), given, strict=True))


def test_flips_of_left_and_right_without_pairs_are_refused_with_the_pairs():
    names = ("background", "l_brow", "r_brow", "Left Ear", "right ear", "left_hand")
    with pytest.raises(
        ValueError,
        match=r"^flip would teach that l_brow is r_brow: write task: \{kind: segmentation, "
        r"flip_pairs: \[\[l_brow, r_brow\], \[Left Ear, right ear\]\]\}, or leave flip out$",
    ):
        Augmentation(flip=True).check(Segmentation(names))
    Augmentation(flip=True).check(Segmentation(names, flip_pairs=(("l_brow", "r_brow"), ("Left Ear", "right ear"))))
    Augmentation(flip=True).check(Segmentation(("lamp", "ramp", "cleft_x", "cright_x", "XL", "XR")))


@pytest.mark.parametrize(
    "names",
    [
        ("leftBrow", "rightBrow"),
        ("LeftEar", "RightEar"),
        ("eyeL", "eyeR"),
        ("LEye", "REye"),
        ("browLeft", "browRight"),
        ("lefteye", "righteye"),
        ("Lefthand2", "righthand2"),
        ("LEFT", "RIGHT"),
        ("foot.l.001", "foot.r.001"),
    ],
)
def test_left_and_right_are_seen_however_a_name_is_written(names):
    assert named_pairs(("background", *names)) == (names,)
    assert named_pairs(("background", *reversed(names))) == (names,)
    assert named_pairs(("background", names[0])) == ()
    Augmentation(scale=(0.5, 2.0)).check(Segmentation(names))


def test_pairs_that_are_given_are_kept_in_the_proposal():
    names = ("l_a", "r_a", "left_b", "right_b")
    with pytest.raises(ValueError, match=r"flip_pairs: \[\[l_a, r_a\], \[left_b, right_b\]\]"):
        Augmentation(flip=True).check(Segmentation(names, flip_pairs=(("l_a", "r_a"),)))


@pytest.mark.parametrize("task", [Segmentation, Classification])
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((("a", "x"),), r"^flip_pairs must name classes of \['a', 'b', 'c'\], got 'x'$"),
        ((("a", "a"),), r"^flip_pairs must hold each class once, got \[\['a', 'a'\]\]$"),
        ((("a", "b"), ("b", "c")), r"^flip_pairs must hold each class once"),
    ],
)
def test_pairs_are_checked(task, pairs, message):
    with pytest.raises(ValueError, match=message):
        task(("a", "b", "c"), flip_pairs=pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2.0, 0.5)}, r"^scale must be two positive factors, the smaller first, got \[2.0, 0.5\]$"),
        ({"scale": (0.0, 1.0)}, "^scale must be"),
        ({"shift": 1.0}, "^shift must be at least 0 and less than 1, got 1.0$"),
        ({"contrast": -0.1}, "^contrast must be at least 0 and less than 1, got -0.1$"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_the_batch_is_the_same():
    augmentation = Augmentation(flip=True, scale=(0.5, 2.0), shift=0.1, brightness=0.2)
    draw = augmentation.draw(4, torch.Generator().manual_seed(0))
    given = batch()
    on_gpu = [part.cuda() for part in given]
    augmentation.apply(*on_gpu, draw, EYES)  # constants are copied to the GPU once
    with no_waiting():
        got = augmentation.apply(*on_gpu, draw, EYES)
    expected = augmentation.apply(*given, draw, EYES)
    assert (got[0].cpu().int() - expected[0].int()).abs().max() <= 1
    assert (got[1].cpu() == expected[1]).float().mean() > 0.95
