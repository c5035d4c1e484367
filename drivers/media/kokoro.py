"""The voice Kokoro-82M (https://huggingface.co/hexgrad/Kokoro-82M), by onnxruntime.

What: text -> phonemes (espeak-ng, clause by clause, so that punctuation keeps its place) -> the model's own notation
    -> tokens -> 24 kHz sound. A style has a row for every length of text in tokens.
Invariant: no more than `MAX_TOKENS` go in at once; longer text is cut between words and said in several runs. Signs
    that the model does not know are passed over.
Interface: `Kokoro(folder)`: `voices`, `say(text, voice, speed) -> Sound`; `notation(ipa, language)`; `LANGUAGES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos.drivers.media.errors import MediaError, part
from llmos.drivers.media.espeak import phonemes
from llmos.drivers.media.sound import Sound, joined

RATE = 24_000
MAX_TOKENS = 510
LANGUAGES = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "p": "pt-br"}
"""The first letter of a voice's name -> what espeak-ng calls its language."""

_QUIET = 0.01  # amplitude below which the ends of a run are silence
_MARGIN = 0.05  # seconds of it that are kept
# What stands between clauses and is a token of its own. A point inside of a number or an abbreviation is not.
_ABBREVIATION = r"(?<!\bMr)(?<!\bDr)(?<!\bMs)(?<!\bSt)(?<!\bvs)(?<!\bMrs)(?<!\bNo)(?<!\be\.g)(?<!\bi\.e)"
_MARK = re.compile(rf'\s*((?:{_ABBREVIATION}[.;:,!?…—]+(?=[\s"”)]|$))|["“”()])\s*')

# From espeak-ng's notation to the one that the model learnt (github.com/hexgrad/misaki, Apache-2.0).
_TIED = {"a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ", "e^ɪ": "A", "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "o^ʊ": "O", "ə^ʊ": "Q"}
_ROMANCE = _TIED | {"d^z": "ʣ", "s^s": "S", "t^s": "ʦ"}
_ENGLISH = _TIED | {
    "ʔˌn\u0329": "tn", "ʔn\u0329": "tn", "ʔn": "tn", "ʔ": "t", "e": "A", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "",
    "ɚ": "əɹ", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "", "ɾ": "T",
}  # fmt: skip
_AMERICAN = _ENGLISH | {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": "", "o": "ɔ"}
_BRITISH = _ENGLISH | {"e^ə": "ɛː", "iə": "ɪə"}


class Kokoro:
    """The model in `folder`, with a file `VOICE.bin` beside it for each of its voices.

    Raises:
        MediaError: onnxruntime is missing, or the file is no such model.
    """

    def __init__(self, folder: Path, model: str = "model_quantized.onnx", threads: int = 0) -> None:
        self._folder, self._model, self._threads = folder, model, threads

    @cached_property
    def voices(self) -> tuple[str, ...]:
        """Names such as "af_heart": language, f or m, and a name."""
        return tuple(sorted(file.stem for file in self._folder.glob("*.bin") if file.stem[0] in LANGUAGES))

    @cached_property
    def _session(self) -> Any:
        runtime = part("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self._threads, 3
        try:
            return runtime.InferenceSession(
                str(self._folder / self._model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no public errors
            raise MediaError(
                f"{self._model} cannot be run", why=str(error)[:300], do="`llmos models verify kokoro-82m`"
            ) from None

    def say(self, text: str, voice: str, speed: float = 1.0) -> Sound:
        """One sentence, spoken.

        Raises:
            MediaError: no such voice, no espeak-ng, or nothing in the text can be said.
        """
        if voice not in self.voices:
            raise MediaError(f"there is no voice {voice!r}", do=f"choose one of {', '.join(self.voices)}")
        runs = [self._run(run, voice, speed) for run in _runs(_tokens(sounds_of(text, LANGUAGES[voice[0]])))]
        return joined(runs)

    def _run(self, tokens: list[int], voice: str, speed: float) -> Sound:
        style = self._styles(voice)[min(len(tokens), MAX_TOKENS) - 1]
        fed = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style,
            "speed": np.array([speed], np.float32),
        }
        names = {given.name for given in self._session.get_inputs()}
        if "input_ids" in names:  # as newer exports call it
            fed["input_ids"] = fed.pop("tokens")
        (audio,) = self._session.run(None, fed)
        return Sound(_trimmed(np.asarray(audio, np.float32).reshape(-1)), RATE)

    def _styles(self, voice: str) -> npt.NDArray[np.float32]:
        """f32 [510, 1, 256]."""
        return np.fromfile(self._folder / f"{voice}.bin", "<f4").reshape(MAX_TOKENS, 1, 256)


def sounds_of(text: str, language: str) -> str:
    """A sentence in the model's notation, its punctuation in place."""
    out = []
    for at, piece in enumerate(_MARK.split(" ".join(text.split()))):
        if at % 2:
            out.append(f" {piece}" if piece in "(“" else f"{piece} ")
        elif any(map(str.isalnum, piece)):
            out.append(notation(phonemes(piece, language), language))
    return " ".join("".join(out).split())


def notation(ipa: str, language: str) -> str:
    """From espeak-ng's IPA, tied by `^`, to the model's."""
    table = {"en-us": _AMERICAN, "en-gb": _BRITISH}.get(language, _ROMANCE)
    for old in sorted(table, key=len, reverse=True):
        ipa = ipa.replace(old, table[old])
    ipa = re.sub("(\\S)\u0329", "ᵊ\\1", ipa)  # a syllabic consonant
    return ipa.replace("\u0329", "").replace("^", "").replace("-", "").replace("ɹɹ", "ɹ")


@cache
def _vocabulary() -> dict[str, int]:
    known: dict[str, int] = json.loads(Path(__file__).with_name("kokoro_vocabulary.json").read_text("utf-8"))
    return known


def _tokens(sounds: str) -> list[int]:
    return [_vocabulary()[sign] for sign in sounds if sign in _vocabulary()]


def _runs(tokens: list[int]) -> Iterator[list[int]]:
    """Pieces that fit the model, cut at spaces."""
    space = _vocabulary()[" "]
    while len(tokens) > MAX_TOKENS:
        at = next((i for i in range(MAX_TOKENS, 0, -1) if tokens[i] == space), MAX_TOKENS)
        yield tokens[:at]
        tokens = tokens[at:]
    if tokens:
        yield tokens


def _trimmed(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the silence at both ends, but for a little of it."""
    loud = np.flatnonzero(np.abs(samples) > _QUIET)
    if not loud.size:
        return samples
    margin = round(_MARGIN * RATE)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]
