"""The one error tree.

What: every error that llmos raises on purpose, drawn below.
Invariant: a message has three parts: what happened, why, and what to do about it.
Interface: raise a leaf (`raise WindowOverflow(what, why=..., do=...)`), catch a branch.
    Do not raise a bare `LLMOSError`, and do not catch `Exception` to hide one.

    LLMOSError
    ├── ConfigError            llmos.yaml or an expert file: names file, line and key
    ├── WeightsError           anything about a model's files
    │   ├── ModelNotFound      no such catalogue name, file or folder
    │   ├── DownloadFailed     no source could give the file
    │   ├── CorruptWeights     the bytes are not what the format or the hash says
    │   ├── UnsupportedModel   readable, but an architecture or tensor type we do not run
    │   └── AdapterMismatch    an adapter for other weights, or of another rank than it says
    ├── TemplateError          a chat template that cannot be rendered
    ├── DocumentError          a document that cannot be read (damaged, encrypted, hostile, too large)
    ├── MemoryFault            the memory hierarchy
    │   ├── WindowOverflow     does not fit the window's token budget
    │   ├── PoolExhausted      no free KV pages
    │   └── VolumeError        a volume's store is damaged, locked or gone
    ├── ProcessError           a process cannot do what was asked of it
    │   ├── NoSuchProcess      no process has that pid (any more)
    │   ├── TurnRefused        a turn that cannot start (one is running, the process is gone)
    │   ├── AnswerCut          an answer ended before it was what it had to be
    │   ├── CheckpointError    a checkpoint that is damaged, or of other weights than those that run
    │   ├── CallDenied         the monitor, or whoever was asked, said no
    │   ├── MailboxFull        the receiver does not read; nothing was sent
    │   ├── QuotaExceeded      tokens, syscalls, seconds or pages used up
    │   └── GrammarError       a grammar that does not compile, or a token that it forbids
    ├── AppError               an app, or a call of one of its syscalls
    │   ├── ManifestError      an app is declared wrongly: names, types, effects
    │   ├── ManifestChanged    a server's syscalls are not those that were confirmed
    │   ├── BadArguments       arguments that do not fit the syscall's schema
    │   ├── AppFailed          the app's own code raised; carries the name of its error
    │   ├── BadResult          a result of the wrong type, too large, or no answer at all but noise
    │   ├── AppUnavailable     its process cannot be started, or ended during the call
    │   ├── DeadlineExceeded   the call took longer than its syscall allows
    │   ├── SecretMissing      a secret that nobody gave
    │   └── AskRefused         a question to the model that the caller's kernel does not answer
    ├── LearningError          training, and what it is given
    │   ├── BadExamples        a data set that cannot be learnt from; names file and row
    │   ├── PlanError          a training run that cannot be planned
    │   ├── NoSignal           self-improvement in a domain where every answer is worth the same
    │   └── TrainingDiverged   a loss or a gradient that is no number; the last good state stands
    ├── EngineError            the step failed or a request it cannot hold
    ├── JournalError           the journal cannot be read or written, or is of another version, or closed
    │   ├── JournalDamaged     its bytes are not what was written; the next start keeps what is good
    │   └── JournalInUse       another kernel owns this state folder
    ├── ZipError               a file that cannot be zipped, or not unzipped here: damaged, or of other weights
    ├── DiskFull               the disk had no room; nothing half-written was left
    └── Cancelled              the user or a program asked to stop
"""


def _sentence(text: str) -> str:
    return text if text.endswith(("?", "!")) else text.rstrip(".") + "."


class LLMOSError(Exception):
    """Root of the tree.

    Args:
        what: what happened, in one clause.
        why: the cause, where it is known.
        do: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", do: str = "") -> None:
        self.what, self.why, self.do = what, why, do
        super().__init__(what)

    def __str__(self) -> str:
        sentences = (_sentence(part) for part in (self.what, self.why, self.do) if part)
        return " ".join(sentences)


class ConfigError(LLMOSError):
    """A configuration file is missing or wrong; carries `file`, `line` (1-based, 0 unknown) and `key`."""

    def __init__(
        self, what: str, *, why: str = "", do: str = "", file: str = "", line: int = 0, key: str = ""
    ) -> None:
        self.file, self.line, self.key = file, line, key
        where = f"{file}:{line}" if file and line else file
        super().__init__(": ".join(p for p in (where, key, what) if p), why=why, do=do)


class WeightsError(LLMOSError):
    """Anything about a model's files."""


class ModelNotFound(WeightsError):
    """No catalogue entry, file or folder of that name."""


class DownloadFailed(WeightsError):
    """Every source was tried and none gave the file."""


class CorruptWeights(WeightsError):
    """The bytes contradict the format or the expected hash."""


class UnsupportedModel(WeightsError):
    """A readable file whose architecture or tensor type is not run here."""


class AdapterMismatch(WeightsError):
    """An adapter that was made for other weights, or whose matrices have not the rank that it says."""


class TemplateError(LLMOSError):
    """A chat template that cannot be rendered."""


class DocumentError(LLMOSError):
    """A document that cannot be read: damaged, encrypted, hostile or too large."""


class MemoryFault(LLMOSError):
    """The memory hierarchy."""


class WindowOverflow(MemoryFault):
    """Does not fit the window's token budget."""


class PoolExhausted(MemoryFault):
    """No free KV pages."""


class VolumeError(MemoryFault):
    """A volume's store is damaged, locked or gone."""


class ProcessError(LLMOSError):
    """A process cannot do what was asked of it."""


class TurnRefused(ProcessError):
    """A turn that cannot start."""


class NoSuchProcess(ProcessError):
    """No process has that pid (any more)."""


class AnswerCut(ProcessError):
    """An answer ended before it was what it had to be."""


class CheckpointError(ProcessError):
    """A checkpoint that cannot be resumed here: damaged, or of other weights."""


class CallDenied(ProcessError):
    """The monitor, or whoever was asked, said no."""


class MailboxFull(ProcessError):
    """The receiver does not read; nothing was sent."""


class QuotaExceeded(ProcessError):
    """A quota is used up; carries its name."""

    def __init__(self, what: str, *, why: str = "", do: str = "", quota: str = "") -> None:
        self.quota = quota
        super().__init__(what, why=why, do=do)


class GrammarError(ProcessError):
    """A grammar that does not compile, or a token that it forbids."""


class AppError(LLMOSError):
    """An app, or a call of one of its syscalls."""


class ManifestError(AppError):
    """An app is declared wrongly: names, types, effects."""


class ManifestChanged(AppError):
    """A server's syscalls are not those that were confirmed; carries both fingerprints."""

    def __init__(
        self, what: str, *, why: str = "", do: str = "", confirmed: str = "", listed: str = ""
    ) -> None:
        self.confirmed, self.listed = confirmed, listed
        super().__init__(what, why=why, do=do)


class BadArguments(AppError):
    """Arguments that do not fit the syscall's schema."""


class AppFailed(AppError):
    """The app's own code raised; `type` is the name of its error."""

    def __init__(self, what: str, *, why: str = "", do: str = "", type: str = "") -> None:
        self.type = type
        super().__init__(what, why=why, do=do)


class BadResult(AppError):
    """A result of the wrong type, too large, or no answer at all but noise."""


class AppUnavailable(AppError):
    """Its process cannot be started, or ended during the call."""


class DeadlineExceeded(AppError):
    """The call took longer than its syscall allows."""


class SecretMissing(AppError):
    """A secret that nobody gave."""


class AskRefused(AppError):
    """A question to the model that the caller's kernel does not answer."""


class LearningError(LLMOSError):
    """Training, and what it is given."""


class BadExamples(LearningError):
    """A data set that cannot be learnt from; names file and row."""


class PlanError(LearningError):
    """A training run that cannot be planned."""


class NoSignal(LearningError):
    """Every answer is worth as much as every other; `mastered`: because all are right."""

    def __init__(self, what: str, *, why: str = "", do: str = "", mastered: bool = False) -> None:
        self.mastered = mastered
        super().__init__(what, why=why, do=do)


class TrainingDiverged(LearningError):
    """A loss or a gradient that is no number; the last good state stands."""


class EngineError(LLMOSError):
    """The step failed, or was given a request it cannot hold."""


class JournalError(LLMOSError):
    """The journal cannot be read or written, or is of another version, or closed."""


class JournalDamaged(JournalError):
    """The journal's bytes are not what was written; the next start keeps what is good."""


class JournalInUse(JournalError):
    """Another kernel owns this state folder; `pid` is its process on this machine, 0 where unknown."""

    def __init__(self, what: str, *, why: str = "", do: str = "", pid: int = 0) -> None:
        self.pid = pid
        super().__init__(what, why=why, do=do)


class ZipError(LLMOSError):
    """A file that cannot be zipped, or not unzipped here: damaged, or of other weights."""


class DiskFull(LLMOSError):
    """The disk had no room; nothing half-written was left."""


class Cancelled(LLMOSError):
    """The user or a program asked to stop."""

    exit_code = 130
