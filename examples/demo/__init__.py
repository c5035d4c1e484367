"""The demo: a real model answers questions about Debian's policy manual and says where it read the answer."""
