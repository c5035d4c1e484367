"""One decoder for every family, described by its configuration."""
