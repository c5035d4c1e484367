"""The kernel behind the protocol that most programs speak: `/v1/chat/completions` and its neighbours.

What: an HTTP server on the kernel's own loop, with starlette and uvicorn. One request is one process, spawned for
    it and reaped after it, so what the request says is all that the process knows; pages of windows that begin
    alike are shared by content.
Invariant: whoever is let in speaks with the user's own voice, so without a key only this machine's programs are,
    and no web page. Nothing a request asks for is left out in silence: what is not supported is an error in the
    protocol's own shape. A client that leaves ends its process.
Interface: `llmos.serve.server`: `Server(kernel, listen(host, port), keys=…, limits=…)`, a context manager; `Limits`.

    protocol.py   what requests may hold          service.py   what is done about each path
    asking.py     from a request to a question    answers.py   the processes of one request
    replies.py    from events to replies          embeddings.py   vectors
    wire.py       sending, and clients that left  gate.py      who is let in, and how many
    refusal.py    errors in the protocol's shape  server.py    the socket, start, stop
"""
