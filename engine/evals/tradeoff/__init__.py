"""Which model for some data: paired evidence beside costs, as a Pareto set."""
