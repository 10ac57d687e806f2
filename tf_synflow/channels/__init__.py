"""Which channels of a network are alive, kept and cut; shrinking."""
