"""Experts: specialists that a person can read, write, share and trust.

What: an expert is a YAML file: instructions, documents, grants, tests. This app finds experts, agrees on their grants,
    turns them into processes, runs their tests, packs, signs, publishes and installs them.
Invariant: nothing that came in a pack runs as code, writes outside of its folder, or is granted what nobody agreed to.
Interface: `shelf.Shelf` (which there are), `grants` (what was agreed to), `launch` (expert -> process), `evaluation`
    (their tests), `packing`, `unpacking`, `installing` and `store` (how they travel), `directory` (what the kernel is
    told), `draft` (new ones).
"""
