"""What each module of a network costs: counts, memory and its share of the time."""
