"""How the kernel's model comes to be, and becomes better: training with optax, on the decoder that serves."""
