"""Floor 1: hardware, file formats and the outside world."""
