"""The engine: one step for every process. Knows nothing about text."""
