"""Floor 3, privileged: the model, the engine and the processes that run on it."""
