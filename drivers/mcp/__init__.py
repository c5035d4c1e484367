"""Apps as MCP servers: the client's side of the protocol, and the processes behind it.

What: connections over stdio and streamable HTTP by the official `mcp` package, and child processes that leave
    nothing behind.
Invariant: importing this package imports no `mcp` (most of a second); a server's noise, lies and floods become
    typed errors; a server's process ends with all its children, also when the kernel is killed.
Interface: `Connection.open(Stdio(...) | Http(...))` in `client`; `CallMeta` in `meta`.
"""
