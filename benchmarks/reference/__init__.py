"""Scripts that made the reference fixtures, and the fixtures of the GGUF models."""
