"""A genotype as an SVG drawing."""
