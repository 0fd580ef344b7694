"""Errors of this package.

SearchSpaceError
└── GenotypeError (ValueError)   a genotype that its space does not hold, or a text that names none
"""


class SearchSpaceError(Exception):
    """Base of the errors that `search_spaces` raises on purpose."""


class GenotypeError(SearchSpaceError, ValueError):
    """A genotype does not belong to the space it was given to."""
