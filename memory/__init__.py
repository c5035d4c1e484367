"""Floor 2: the memory hierarchy: window, volumes, retrieval."""
