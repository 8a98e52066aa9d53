"""What evaluations share: features, labels, groups, splits, the machine, results, predictions and records."""
