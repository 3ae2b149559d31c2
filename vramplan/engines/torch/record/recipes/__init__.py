"""How each family of pipelines is built without weights and run through its own code."""
