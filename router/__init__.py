"""Which deployments answer a request, and in which order: features, complexity model, planner, training, evaluation."""
