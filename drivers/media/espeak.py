"""espeak-ng, as a program: the sounds that words are made of, and a plain voice for any language.

What: runs `espeak-ng` (GPL, so beside us and never linked) on text that goes in by its standard input.
Invariant: text is data: no option, no markup and no phoneme notation in it is obeyed.
Interface: `phonemes(text, language)` in IPA; `speak(text, language, speed) -> Sound`; `languages()`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.sound import Sound, open_sound

RATE = 22_050  # samples a second that it makes
_SECONDS = 60.0  # for one clause; it takes milliseconds
_WORDS_A_MINUTE = 170


def phonemes(text: str, language: str) -> str:
    """IPA with stress marks, diphthongs and affricates tied by `^`.

    Raises:
        MediaError: there is no espeak-ng, or no such language.
    """
    said = _run(["-q", "--ipa", "--tie=^"], text, language).decode("utf-8", "replace")
    return " ".join(said.split())


def speak(text: str, language: str, speed: float = 1.0) -> Sound:
    """The text spoken by its plain voice; `speed` 1 is usual.

    Raises:
        MediaError: as `phonemes`, or nothing in the text can be said.
    """
    pace = str(round(_WORDS_A_MINUTE * speed))
    return open_sound(_run(["--stdout", "-s", pace], text, language), "what espeak-ng said", rate=RATE)


@cache
def languages() -> frozenset[str]:
    """The languages that it speaks, such as "en-us", "de", "pt-br"."""
    lines = _ask(["--voices"]).decode("utf-8", "replace").splitlines()[1:]
    return frozenset(line.split()[1] for line in lines if len(line.split()) > 1)


def _run(options: list[str], text: str, language: str) -> bytes:
    if language not in languages():
        raise MediaError(
            f"espeak-ng does not speak {language!r}",
            why=f"it has {len(languages())} languages, by codes such as en-us, de, fr, pt-br",
            do="`espeak-ng --voices` lists them",
        )
    plain = re.sub(r"\[\[|\]\]", " ", " ".join(text.split()))  # double brackets would begin phonemes
    return _ask([*options, "-v", language, "-b", "1", "--stdin"], plain.encode())


def _ask(arguments: list[str], words: bytes = b"") -> bytes:
    program = shutil.which("espeak-ng")
    if program is None:
        raise MediaError(
            "there is no espeak-ng",
            why="it turns words into the sounds that a voice is made from",
            do="apt-get install espeak-ng",
        )
    try:
        done = subprocess.run(
            [program, *arguments], input=words, capture_output=True, timeout=_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise MediaError("espeak-ng failed", why=str(error)[:200], do="reinstall espeak-ng") from None
    return done.stdout
