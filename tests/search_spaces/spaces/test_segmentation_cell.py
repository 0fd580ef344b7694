import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces import GeneKind, SegmentationCell
from search_spaces.spaces.segmentation_cell import SEGMENTATION_OPERATIONS

SPACE = SegmentationCell()
SMALL = SegmentationCell(n_cells=4, n_branches=2, decoder_widths=(8, 16), encoder_width=8)
OP = {name: value for value, name in enumerate(SEGMENTATION_OPERATIONS)}
N_ENCODER = 4
TAIL = ("decoder_width", "head")
ARGUMENTS = {"in_channels": 3, "n_classes": 4, "seed": 0}


def encode(space, cells, width=0, head=0):
    """Genotype from cells of branches of (operation name, source) pairs; what is left out is none."""
    values = []
    for cell in [*cells, *[[]] * (space.n_cells - len(cells))]:
        for branch in [*cell, *[[]] * (space.n_branches - len(cell))]:
            for operation, source in [*branch, *[("none", 0)] * (2 - len(branch))]:
                values += [source, OP[operation]]
    return space.genotype([*values, width, head])


def decode(space, genotype):
    """Cells of branches of [operation, source] lists, all of them, to be changed in place."""
    values = np.reshape(genotype.genes[:-2], (space.n_cells, space.n_branches, 2, 2))
    return [[[[int(o), int(s)] for s, o in branch] for branch in cell] for cell in values]


def flatten(space, cells, genotype):
    terms = [term for cell in cells for branch in cell for term in branch]
    return space.genotype([*(v for o, s in terms for v in (s, o)), *genotype.genes[-2:]])


def expression(cells, source):
    """What a source computes, written out as a tree; empty if nothing. Slow and independent."""
    if source < N_ENCODER:
        return f"s{source}"
    branches = [branch_expression(cells, branch) for branch in cells[source - N_ENCODER]]
    return "|".join(sorted(filter(None, branches)))


def branch_expression(cells, branch):
    return "+".join(sorted(filter(None, (term_expression(cells, term) for term in branch))))


def term_expression(cells, term):
    operation, source = term
    inner = expression(cells, source) if operation else ""
    return f"{operation}({inner})" if inner else ""


def shuffled(space, genotype, rng):
    """Another genotype of the same network: other orders, other dead genes, exchanged cells."""
    cells = decode(space, genotype)
    live = space.live_cells(genotype)
    for index, cell in enumerate(cells):
        for branch in cell:
            for term in branch:
                if N_ENCODER + index not in live:
                    term[:] = int(rng.integers(len(OP))), int(rng.integers(N_ENCODER + index))
                elif not term_expression(cells, term):
                    term[:] = 0, int(rng.integers(N_ENCODER + index))
            rng.shuffle(branch)
        rng.shuffle(cell)
    for first in rng.permutation(space.n_cells - 2):
        exchange_if_possible(cells, first)
    return flatten(space, cells, genotype)


def exchange_if_possible(cells, first):
    a, b = N_ENCODER + first, N_ENCODER + first + 1
    if any(source == a for branch in cells[first + 1] for _, source in branch):
        return
    cells[first], cells[first + 1] = cells[first + 1], cells[first]
    for cell in cells[first + 2 :]:
        for branch in cell:
            for term in branch:
                term[1] = {a: b, b: a}.get(term[1], term[1])


def give_weights_by_expression(model, space, genotype):
    """Draw each operation's weights from what it computes, so that equal terms get equal weights."""

    def draw(module, text):
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    cells = decode(space, genotype)
    draw(model.encoder, "encoder")
    draw(model.head, "head")
    for source, projection in model.decoder.projections.items():
        draw(projection, f"projection {source}")
    for source, cell in space.live_cells(genotype).items():
        built = model.decoder.cells[str(source)]
        merge = built.merge[1]
        width = merge.weight.shape[0]
        for index, branch in enumerate(cell):
            for term, operation in zip(branch, built.branches[index], strict=True):
                draw(operation, term_expression(cells, term))
            slices = nn.Conv2d(width, width, 1, bias=False).to(merge.weight)
            draw(slices, branch_expression(cells, branch))
            with torch.no_grad():
                merge.weight[:, index * width : (index + 1) * width] = slices.weight


def samples(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def n_params(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_default_space_has_the_genes_that_were_asked_for():
    # A term of cell c chooses one of 4 + c sources and 11 operations; a cell has 6 terms.
    assert SPACE.n_genotypes == (44 * 55 * 66) ** 6 * 4 * 2
    assert [gene.name for gene in SPACE.genes[:2]] == ["cell_0_branch_0a_source", "cell_0_branch_0a_operation"]
    assert SPACE.genes[0].choices == ("s4", "s8", "s16", "s32")
    assert SPACE.genes[24].choices == ("s4", "s8", "s16", "s32", "c0", "c1")
    assert [(gene.name, gene.kind) for gene in SPACE.genes[-2:]] == [
        ("decoder_width", GeneKind.ORDINAL),
        ("head", GeneKind.CATEGORICAL),
    ]


def test_default_encoder_has_about_0_18_million_parameters_and_the_strides():
    model = SPACE.build_for_pretraining(in_channels=3, n_classes=8, seed=0)
    assert n_params(model.encoder) == pytest.approx(0.18e6, rel=0.1)
    features = model.encoder(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [(1, 16, 16, 24), (1, 24, 8, 12), (1, 40, 4, 6), (1, 80, 2, 3)]


def test_canonical_sorts_terms_and_branches_and_drops_what_is_dead():
    genotype = encode(
        SPACE,
        [
            [[("conv_3x3", 2)]],  # nobody reads it
            [[("none", 3), ("none", 2)]],  # nothing in it
            [[("skip", 3), ("skip", 1)], [("conv_1x1", 5), ("none", 4)], [("none", 0), ("skip", 2)]],
        ],
        width=2,
        head=1,
    )
    expected = encode(SPACE, [[], [], [[], [("skip", 1), ("skip", 3)], [("none", 0), ("skip", 2)]]], 2, 1)
    assert SPACE.canonical(genotype).genes == expected.genes
    assert SPACE.describe(genotype) == "c2 = skip(s32) + skip(s8) | skip(s16); width 32; learned head"


def test_canonical_does_not_depend_on_which_cell_stands_where():
    first, second = [[("skip", 0)]], [[("conv_3x3", 1)]]
    reads = [[("skip", 4), ("conv_1x1", 5)]]
    crossed = [[("skip", 5), ("conv_1x1", 4)]]
    assert SPACE.canonical(encode(SPACE, [first, second, reads])) == SPACE.canonical(
        encode(SPACE, [second, first, crossed])
    )
    assert SPACE.canonical(encode(SPACE, [first, second, reads])) != SPACE.canonical(
        encode(SPACE, [first, second, crossed])
    )


def test_what_reads_a_dead_cell_is_dead_too():
    dead_first = encode(SPACE, [[[("none", 0)]], [[("skip", 4), ("conv_1x1", 1)]], [[("skip", 5)]]])
    assert SPACE.live_cells(dead_first).keys() == {5, 6}
    without = encode(SPACE, [[[("none", 0)]], [[("conv_1x1", 1)]], [[("skip", 5)]]])
    assert SPACE.canonical(dead_first) == SPACE.canonical(without)


def test_live_cells_stand_at_the_end_however_many_there_are():
    space = SegmentationCell(n_cells=6)
    only_last = space.canonical(encode(space, [*[[]] * 5, [[("conv_1x1", 1)]]]))
    assert space.live_cells(only_last).keys() == {9}
    assert space.describe(only_last).startswith("c5 = conv_1x1(s8)")
    two = space.canonical(encode(space, [[[("skip", 0)]], *[[]] * 4, [[("conv_1x1", 4)]]]))
    assert space.describe(two).startswith("c4 = skip(s4); c5 = conv_1x1(c4)")
    assert space.canonical(two) == two


def test_no_stage_is_built_for_cells_that_read_cells():
    chain = encode(SPACE, [[[("skip", 0)]], [[("skip", 4)]], [[("skip", 5)]]])
    encoder = SPACE.build(chain, **ARGUMENTS).encoder
    assert len(encoder(torch.zeros(1, 3, 32, 32))) == 1
    empty = SPACE.build(encode(SPACE, []), **ARGUMENTS).encoder
    assert len(empty(torch.zeros(1, 3, 32, 32))) == 1


def test_canonical_tells_one_cell_read_twice_from_two_equal_cells():
    cell = [[("conv_3x3", 0)]]
    twice = SPACE.canonical(encode(SPACE, [cell, cell, [[("skip", 4), ("conv_1x1", 4)]]]))
    other = SPACE.canonical(encode(SPACE, [cell, cell, [[("skip", 5), ("conv_1x1", 5)]]]))
    equal = SPACE.canonical(encode(SPACE, [cell, cell, [[("skip", 4), ("conv_1x1", 5)]]]))
    swapped = SPACE.canonical(encode(SPACE, [cell, cell, [[("skip", 5), ("conv_1x1", 4)]]]))
    assert twice == other
    assert equal == swapped
    assert equal != twice


def test_changes_that_build_the_same_network_keep_the_canonical_form():
    rng = np.random.default_rng(1)
    n_changed = 0
    for genotype in samples(SMALL, 150):
        for _ in range(3):
            other = shuffled(SMALL, genotype, rng)
            n_changed += other != genotype
            assert SMALL.canonical(other) == SMALL.canonical(genotype)
    assert n_changed > 400


def test_equal_canonical_forms_build_networks_of_equal_shapes_and_outputs():
    rng = np.random.default_rng(2)
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for genotype in samples(SMALL, 12):
        shapes, outputs = [], []
        for each in (genotype, shuffled(SMALL, genotype, rng), SMALL.canonical(genotype)):
            model = SMALL.build(each, in_channels=3, n_classes=3, seed=0).double().eval()
            give_weights_by_expression(model, SMALL, each)
            shapes.append(sorted(tuple(value.shape) for value in model.state_dict().values()))
            with torch.no_grad():
                outputs.append(model(images))
        assert shapes[0] == shapes[1] == shapes[2]
        torch.testing.assert_close(outputs[1], outputs[0])
        torch.testing.assert_close(outputs[2], outputs[0])


def test_canonical_forms_compute_what_their_genotypes_do():
    for genotype in samples(SMALL, 300):
        last = N_ENCODER + SMALL.n_cells - 1
        assert expression(decode(SMALL, SMALL.canonical(genotype)), last) == expression(decode(SMALL, genotype), last)


def test_a_change_of_a_live_gene_changes_the_canonical_form():
    rng = np.random.default_rng(3)
    for genotype in samples(SMALL, 60):
        canonical = SMALL.canonical(genotype)
        for index, gene in enumerate(SMALL.genes):
            if not is_live(SMALL, canonical, index):
                continue
            value = int(rng.choice([v for v in range(limit(gene)) if v != canonical.genes[index]]))
            values = [*canonical.genes[:index], value, *canonical.genes[index + 1 :]]
            assert SMALL.canonical(SMALL.genotype(values)) != canonical, gene.name


def limit(gene):
    """Sources only among the encoder's: reading another, equal cell may be the same network."""
    return N_ENCODER if gene.name.endswith("source") else gene.n_values


def is_live(space, genotype, index):
    if index >= len(genotype.genes) - 2:
        return True
    cells = decode(space, genotype)
    cell, branch, side, _ = np.unravel_index(index, (space.n_cells, space.n_branches, 2, 2))
    reads_encoder = cells[cell][branch][side][1] < N_ENCODER
    is_operation = index % 2 == 1
    live = bool(term_expression(cells, cells[cell][branch][side]))
    return N_ENCODER + cell in space.live_cells(genotype) and live and (is_operation or reads_encoder)


def test_nothing_dead_is_built():
    genotype = encode(SPACE, [[[("conv_3x3", 3)]], [], [[("skip", 1), ("conv_1x1", 5)]]])
    model = SPACE.build(genotype, in_channels=3, n_classes=4, seed=0)
    assert set(model.decoder.cells) == {"6"}
    assert set(model.decoder.projections) == {"1"}
    assert len(model.encoder.stages) == 2  # nothing behind stride 8 is read
    assert len(model.decoder.cells["6"].branches[0]) == 1


def test_every_weight_that_is_built_is_trained():
    for genotype in samples(SPACE, 8):
        if not SPACE.live_cells(genotype):
            continue
        model = SPACE.build(genotype, in_channels=3, n_classes=4, seed=0)
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("operation", SEGMENTATION_OPERATIONS)
@pytest.mark.parametrize("head", [0, 1])
def test_every_operation_works_at_any_size(operation, head):
    cells = [[], [[(operation, 0), (operation, 3)]], [[(operation, 1), ("skip", 5)], [(operation, 2)]]]
    model = SPACE.build(encode(SPACE, cells, head=head), in_channels=1, n_classes=5, seed=0)
    for size in ((32, 64), (45, 33)):
        assert model(torch.randn(2, 1, *size)).shape == (2, 5, *size)


def test_model_is_head_of_decoder_of_encoder():
    model = SPACE.build(samples(SPACE, 1)[0], in_channels=3, n_classes=4, seed=0).eval()
    assert [name for name, _ in model.named_children()] == ["encoder", "decoder", "head"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.head(model.decoder(model.encoder(x))), rtol=0, atol=0)


def test_stored_features_of_the_whole_encoder_serve_networks_that_use_fewer_stages():
    whole = SPACE.build_for_pretraining(in_channels=3, n_classes=4, seed=0).eval()
    images = torch.randn(1, 3, 45, 64)
    with torch.no_grad():
        features = whole.encode(images)
        for source in range(4):
            genotype = encode(SPACE, [[], [], [[("conv_3x3", source)]]])
            model = SPACE.build(genotype, in_channels=3, n_classes=4, seed=0).eval()
            assert len(model.encode(images)) == source + 1
            torch.testing.assert_close(model.decode(features, (45, 64)), model(images), rtol=0, atol=0)


def test_auxiliary_heads_speak_for_every_cell_but_the_last_and_are_no_part_of_the_network():
    cells = [[[("conv_3x3", 3)]], [[("skip", 1), ("conv_1x1", 4)]], [[("skip", 0), ("conv_1x1", 5)]]]
    model = SPACE.build(encode(SPACE, cells), in_channels=3, n_classes=5, seed=0)
    names = set(model.state_dict())
    heads, again = model.new_auxiliary_heads(seed=1), model.new_auxiliary_heads(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), again.parameters(), strict=True))
    images = torch.randn(2, 3, 45, 64)
    logits, auxiliary = model.decode_with_auxiliary(model.encode(images), (45, 64), heads)
    assert [tuple(a.shape) for a in auxiliary] == [(2, 5, 45, 64)] * 2
    assert set(model.state_dict()) == names
    (logits.square().mean() + sum(a.square().mean() for a in auxiliary)).backward()
    assert all(p.grad is not None for p in [*model.parameters(), *heads.parameters()])
    features = model.eval().encode(images)
    torch.testing.assert_close(model.decode_with_auxiliary(features, (45, 64), heads)[0], model(images), rtol=0, atol=0)
    first = model.decoder.cells["4"]({3: model.decoder.projections["3"](features[3])})
    expected = F.interpolate(heads[0](first), (45, 64), mode="bilinear")
    torch.testing.assert_close(model.decode_with_auxiliary(features, (45, 64), heads)[1][0], expected)


@pytest.mark.parametrize("cells", [[], [[], [], [[("skip", 0)]]]])
def test_networks_of_one_cell_or_none_have_no_auxiliary_heads(cells):
    model = SPACE.build(encode(SPACE, cells), in_channels=3, n_classes=5, seed=0)
    heads = model.new_auxiliary_heads(seed=0)
    assert len(heads) == 0
    assert model.decode_with_auxiliary(model.encode(torch.randn(2, 3, 32, 32)), (32, 32), heads)[1] == ()


def test_a_list_of_encoder_widths_is_a_gene_and_leaves_the_others_where_they_were():
    space = SegmentationCell(encoder_width=(8, 16, 24))
    assert space.n_genotypes == 3 * SPACE.n_genotypes
    assert [gene.name for gene in space.genes] == [*(g.name for g in SPACE.genes[:-2]), "encoder_width", *TAIL]
    assert (SPACE.shares_encoder, space.shares_encoder) == (True, False)
    cells = encode(SPACE, [[], [], [[("skip", 3), ("conv_3x3", 1)]]], width=1, head=1).genes[:-2]
    for index, width in enumerate(space.encoder_width):
        genotype = space.canonical(space.genotype([*cells, index, 1, 1]))
        assert space.describe(genotype).endswith(f"; encoder width {width}; width 24; learned head")
        assert genotype.genes[-3:] == (index, 1, 1)
        fixed = SegmentationCell(encoder_width=width)
        built = space.build(genotype, **ARGUMENTS)
        expected = fixed.build(encode(fixed, [[], [], [[("skip", 3), ("conv_3x3", 1)]]], 1, 1), **ARGUMENTS)
        assert n_params(built) == n_params(expected)
    with pytest.raises(ValueError, match=r"^encoder_width must be one number for pretraining, got \(8, 16, 24\)$"):
        space.build_for_pretraining(**ARGUMENTS)


def test_a_drawing_shows_what_the_description_says():
    for genotype in samples(SMALL, 30):
        drawing = ElementTree.fromstring(SMALL.draw(genotype))
        texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
        *cells, width, head = SMALL.describe(genotype).split("; ")
        cells = [] if cells == ["no cells"] else [cell.split(" = ") for cell in cells]
        branches = [branch for _, cell in cells for branch in cell.split(" | ")]
        terms = [term for branch in branches for term in branch.split(" + ")]
        assert sorted(text for text in texts if text.endswith(")")) == sorted(terms)
        assert texts.count("+") == len(terms) - len(branches)
        assert [text for text in texts if text.startswith("cell ")] == [f"cell {name}" for name, _ in cells]
        assert head in texts
        assert texts[0].endswith(f"decoder {width}")


def test_cell_adds_terms_of_a_branch_and_merges_branches():
    cells = [[], [], [[("conv_3x3", 0), ("skip", 1)], [("separable_3x3", 1)]]]
    decoder = SPACE.build(encode(SPACE, cells), in_channels=3, n_classes=4, seed=0).decoder.eval()
    features = [torch.randn(2, 16, 16, 16), torch.randn(2, 24, 8, 8)]
    a, b = decoder.projections["0"](features[0]), decoder.projections["1"](features[1])
    conv, separable = decoder.cells["6"].branches[0][0], decoder.cells["6"].branches[1][0]

    def up(x):
        return nn.functional.interpolate(x, (16, 16), mode="bilinear")

    expected = decoder.cells["6"].merge(torch.cat([conv(a) + up(b), up(separable(b))], dim=1))
    torch.testing.assert_close(decoder(features), expected)


def test_candidates_of_one_seed_share_the_weights_of_their_encoders():
    pretrained = SPACE.build_for_pretraining(in_channels=3, n_classes=4, seed=3).encoder.state_dict()
    for genotype in samples(SPACE, 3):
        encoder = SPACE.build(genotype, in_channels=3, n_classes=4, seed=3).encoder
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, pretrained[name])


def test_a_decoder_of_nothing_gives_constant_logits():
    model = SPACE.build(encode(SPACE, []), in_channels=3, n_classes=4, seed=0).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, 32, 32))
    assert torch.equal(logits, logits[:1, :, :1, :1].expand(2, 4, 32, 32))
    assert SPACE.describe(encode(SPACE, [])) == "no cells; width 16; bilinear head"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("n_cells", 0, "n_cells\n  Input should be greater than or equal to 1 "),
        ("n_branches", 0, "n_branches\n  Input should be greater than or equal to 1 "),
        ("encoder_width", 12, "encoder_width.*\n  Input should be a multiple of 8 .*input_value=12"),
        ("encoder_width", -8, "encoder_width.*\n  Input should be greater than 0 .*input_value=-8"),
        ("encoder_width", (8, 12), "encoder_width.*1\n  Input should be a multiple of 8 .*input_value=12"),
        ("encoder_width", (16, 8), "encoder_width must be in increasing order, got \\(16, 8\\)"),
        ("encoder_width", (16,), "encoder_width.*\n  Tuple should have at least 2 items .* not 1 "),
        ("decoder_widths", (), "decoder_widths\n  Tuple should have at least 1 item .* not 0 "),
        ("decoder_widths", (8, 12), "decoder_widths.1\n  Input should be a multiple of 8 .*input_value=12"),
        ("decoder_widths", (16, 8), "decoder_widths must be in increasing order, got \\(16, 8\\)"),
    ],
)
def test_options_are_checked(option, value, message):
    with pytest.raises(ValueError, match=message):
        SegmentationCell(**{option: value})
