"""The shell: where one talks with the machine, and runs it.

What: plain lines talk to the foreground process, lines with `/` run the system, `!` and `!py` run code in the sandbox,
    `@file` mounts what one speaks of. On a terminal it is drawn and never blocks; with `--plain`, through a pipe and in
    a script it reads a line, answers, reads the next.
Invariant: Ctrl-C ends the running turn, never the shell; an error ends what caused it, with its message, never the
    shell; nothing that a model or a document wrote can act on the terminal; no image or link is fetched by drawing one.
Interface: `llmos shell` and `llmos run`, by `start.shell` and `start.script`; for other verbs `transcript`, `approval`,
    `pmap`.

    start.py       from options to a running shell     shell.py      what a line does
    link.py        the kernel, reached behind one's    jobs.py       processes, and the turns that are read
                   back, and reached again             commands/     one module a group of `/` commands
    face.py        where words go: plain               drawn.py      ... and on a terminal
    editor.py      the line that is being typed        markdown.py   answers, block by block
    completion.py  what may stand there                pictures.py   images, where the terminal can
    script.py      files of lines                      sandboxed.py  `!` and `!py`

This package imports nothing when it is imported: `llmos ask` draws its answers with it too.
"""
