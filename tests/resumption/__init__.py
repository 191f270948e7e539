"""What a fleet behind a layer-4 balancer gains by sharing ticket keys: one run, all regimes, compared by ratios."""
