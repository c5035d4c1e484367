"""Our apps as an MCP server on stdin and stdout.

What: the program that an app's own process runs: `python -m llmos.apps.serve NAME...` serves one or several
    apps to any MCP client; `--manifests` prints what they offer, as JSON, and ends.
Invariant: this process imports neither jax nor the kernel. What an app prints goes to stderr. An app that fails
    (to load, to start, in a call) fails alone. A secret is never printed.
Interface: the program; `llmos.apps.serve.server.serve(names)`.
"""
