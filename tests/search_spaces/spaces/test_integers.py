import pytest

from search_spaces import GeneKind, Integers


def test_enumerates_the_whole_grid_in_order():
    space = Integers(n_genes=2, n_values=3)
    assert [genotype.genes for genotype in space.enumerate()] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)
    ]  # fmt: skip
    assert space.n_genotypes == 9


def test_merges_nothing_and_describes_values():
    space = Integers(n_genes=2, n_values=3)
    genotype = space.genotype([2, 0])
    assert space.canonical(genotype) == genotype
    assert space.describe(genotype) == "x0=2 x1=0"


@pytest.mark.parametrize(("ordinal", "kind"), [(True, GeneKind.ORDINAL), (False, GeneKind.CATEGORICAL)])
def test_genes_are_of_the_kind_that_was_asked_for(ordinal, kind):
    assert {gene.kind for gene in Integers(ordinal=ordinal).genes} == {kind}


@pytest.mark.parametrize("option", ["n_genes", "n_values"])
def test_refuses_an_empty_grid(option):
    with pytest.raises(ValueError, match=rf"{option}\n +Input should be greater than or equal to 1 .*input_value=0"):
        Integers(**{option: 0})
