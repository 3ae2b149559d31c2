"""The budget of a pipeline at its settings: one module per line of the budget."""
