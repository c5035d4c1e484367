"""Floor 4: user space."""
