"""An MCP server over streamable HTTP, by the official package, on a free port that it prints."""

import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("web")


@server.tool()
def echo(text: str) -> str:
    """Says it again."""
    return text


@server.tool()
def flood(megabytes: int) -> str:
    """Says a lot."""
    return "x" * (megabytes << 20)


listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
app = server.streamable_http_app(json_response=sys.argv[1] == "json")
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
