"""`llmos talk`: a spoken conversation.

What: recordings in and WAV files out, or microphone and loudspeaker where there are some; one process for all of it.
Invariant: stdout has what was said, a line a speaker; all that is about it goes to stderr. No model is loaded before
    the recordings are found good.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, dim, neutralise

if TYPE_CHECKING:
    from llmos.apps.multimodal.talk import Exchange, WavFile
    from llmos.drivers.media.device import Loudspeaker
    from llmos.drivers.media.sound import Sound

EXAMPLES = """\
examples:
  llmos talk                                        # microphone and loudspeaker; Ctrl-C ends it
  llmos talk question.wav another.mp3 --out answers/
  llmos talk question.ogg --mount handbook/ --voice bf_emma

It needs pip install 'llmos[media]', apt-get install espeak-ng, and llmos models pull whisper-base kokoro-82m.
With recordings, each is a turn and its answer is written to answer-1.wav, answer-2.wav, ... in --out.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "talk", "Talk with the model aloud.", EXAMPLES)
    parser.add_argument(
        "recordings", metavar="RECORDING", nargs="*", help="sound files to answer in place of the microphone"
    )
    group = parser.add_argument_group("sound")
    group.add_argument(
        "--out",
        metavar="FOLDER",
        help="write answers there in place of the loudspeaker (default with recordings: the current folder)",
    )
    group.add_argument(
        "--voice", metavar="V", default="", help="that answers: af_heart, bf_emma, ..., or espeak-ng"
    )
    group.add_argument(
        "--language",
        metavar="L",
        default="",
        help="that both of you speak, such as de (default: told from the sound; answers in English)",
    )
    group.add_argument("--listener", metavar="M", default="", help="a whisper model of `llmos models list`")
    options.mounts(parser)
    options.grants(parser)
    options.sampling(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a turn")
    options.common(parser)
    options.trace(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.apps.multimodal.talk import INSTRUCTIONS, Talk
    from llmos.apps.shell.approval import at_terminal
    from llmos.cli.inputs import mount_list
    from llmos.connect import connect, load_config
    from llmos.drivers.media.errors import NothingSaid
    from llmos.drivers.media.hearing import Listener
    from llmos.drivers.media.speaking import Speaker

    config = load_config(arguments.config, model=arguments.model)
    mounts = mount_list(arguments.mount, arguments.trust, config)
    sounds = [_opened(Path(name)) for name in arguments.recordings]
    listener = Listener(arguments.listener)
    voice = Speaker().choose(arguments.voice, arguments.language)
    sink = _Answers(arguments.out, len(sounds), voice.rate)
    _note(f"hears with {listener.name}, speaks with {voice.engine} ({voice.voice})")
    if voice.why:
        _note(voice.why)
    bar = Bar(sys.stderr)
    with (
        sink,
        connect(config, progress=bar, asker=at_terminal(config.policy.ask), trace=arguments.trace) as kernel,
    ):
        process = kernel.spawn(mounts=mounts, grants=arguments.grant, instructions=INSTRUCTIONS, progress=bar)
        bar.close()
        talk = Talk(
            process,
            listener,
            voice,
            language=arguments.language,
            ask=lambda question: process.ask(
                question,
                max_tokens=arguments.max_tokens,
                seed=arguments.seed,
                temperature=arguments.temperature,
            ),
        )
        for sound in sounds or _spoken():
            try:
                with sink.next() as out:
                    exchange = talk.turn(sound, out, _no_echo if arguments.json else _echo)
            except NothingSaid:
                if sounds:
                    raise
                continue  # a door, a cough: listen on
            _tell(exchange, sink.last, as_json=arguments.json)
    return 0


def _opened(path: Path) -> Sound:
    from llmos.drivers.documents.reading import read_bytes
    from llmos.drivers.media.sound import open_sound

    return open_sound(read_bytes(path), path.name)


def _spoken() -> Iterator[Sound]:
    """Utterances from the microphone, until Ctrl-C."""
    from llmos.drivers.media.device import record
    from llmos.drivers.media.errors import NothingSaid

    _note("listening ...")
    while True:
        with suppress(NothingSaid):
            yield record()


class _Answers(AbstractContextManager["_Answers"]):
    """Where answers go: numbered files in a folder, or the loudspeaker, which is opened once."""

    def __init__(self, folder: str | None, recordings: int, rate: int) -> None:
        from llmos.drivers.media.device import Loudspeaker

        self._rate, self._count, self.last = rate, 0, ""
        self._folder = Path(folder or ".") if folder is not None or recordings else None
        self._loudspeaker = Loudspeaker(rate) if self._folder is None else None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def next(self) -> AbstractContextManager[WavFile | Loudspeaker]:
        """The sink of the next answer."""
        from llmos.apps.multimodal.talk import WavFile

        if self._folder is None:
            assert self._loudspeaker is not None
            return nullcontext(self._loudspeaker)
        self._count += 1
        path = self._folder / f"answer-{self._count}.wav"
        self.last = str(path)
        return WavFile(path, self._rate)

    def __exit__(self, *_: object) -> None:
        if self._loudspeaker is not None:
            self._loudspeaker.close()


def _echo(question: str) -> None:
    print(f"you: {neutralise(question)}", flush=True)


def _no_echo(question: str) -> None:
    return None


def _tell(exchange: Exchange, file: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**asdict(exchange), "file": file}, ensure_ascii=sys.stdout.isatty()), flush=True)
        return
    print(f"llmos: {neutralise(exchange.answer)}", flush=True)
    _note(
        f"{file + ': ' if file else ''}{exchange.spoken_s:.1f} s of speech · understood after {exchange.heard_s:.1f} s"
        f" · first sound after {exchange.first_sound_s:.1f} s · {exchange.total_s:.1f} s in all"
    )


def _note(text: str) -> None:
    sys.stderr.write(dim(neutralise(text), sys.stderr) + "\n")
    sys.stderr.flush()
