"""Timing of calls: until the median is known well enough, with an injected clock."""
