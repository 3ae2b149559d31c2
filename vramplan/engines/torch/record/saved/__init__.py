"""Recording a saved model whose architecture has no recipe: any class's own code, as it is."""
