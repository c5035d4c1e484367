"""Eyes, ears and voice: apps for pictures and sound, and a spoken conversation.

What: the apps `eyes`, `ears` and `voice` over `llmos.drivers.media`; `talk` puts ears, a process and a voice together.
Invariant: files are those of the caller's working volume and no others. What a picture or recording says is untrusted.
"""
