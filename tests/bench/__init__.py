"""`make bench`: figures, as ratios measured in one run."""
