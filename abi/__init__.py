"""Floor 0: what all floors share. Standard library and pydantic only."""
