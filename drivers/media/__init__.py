"""Pictures and sound: what decodes them, what reads, names, hears and speaks.

What: drivers of the apps under `llmos.apps.multimodal`. The libraries behind them are the extra `media`, imported on
    first use only.
Invariant: bytes from outside are bounded before they are decoded (pixels, seconds), by a decoder that was chosen from
    their first bytes and can open nothing else. What cannot be read is a `MediaError`.
"""
