"""Every limit of the system, in one place, each with its unit and its reason."""

MAX_PROCESSES = 64  # processes that one engine step may serve; more wait their turn
MAX_OPEN = 4096  # processes of one kernel; the table is searched, listed and journalled
MAX_DEPTH = 16  # generations of processes that spawned each other
MAX_MAIL = 64  # letters in a mailbox; a sender waits for room
PAGE_TOKENS = 16  # token slots in a KV page: small enough that a fork wastes little
TOKEN_BUDGET = 512  # tokens that one step may compute, over all processes
LATENCY_BUDGET = 40  # the same on a CPU while somebody waits for each word: a step of 32 words, and a quarter
MAX_DOCUMENT_BYTES = 64 << 20  # a larger file is refused, not cut
MAX_EXPANDED_BYTES = 256 << 20  # of a compressed document, after unpacking (zip bombs)
MAX_CONFIG_BYTES = 1 << 20  # of llmos.yaml or an expert file
MAX_HEADER_BYTES = 128 << 20  # of a weights file's header
MAX_TENSORS = 1 << 16  # in a weights file
MAX_RANK = 256  # of an adapter; those in use have 4 to 64
MAX_DIMENSION = 1 << 31  # of any tensor axis
MAX_UNREAD = 256  # tokens that a slow reader may leave waiting before its own process pauses
MAX_PARSE_SECONDS = 60  # wall time for one document's parser, then its process is ended
MAX_PARSE_BYTES = 3 << 30  # address space of the parser process
MAX_APP_BYTES = 4 << 30  # private memory of each process of an app, where nobody says more (`max_memory`)
MIN_APP_BYTES = 64 << 20  # the least that may be said of it: below, Python itself does not start
MAX_DRAFT = 8  # tokens guessed ahead that one step may check for one process
MAX_DRAFTING_ROWS = 16  # decoding rows up to which guesses are nearly free: weights are read once for all
MAX_TEMPLATE = 128 << 10  # characters of a chat template; real ones have up to 20 thousand
TEMPLATE_SECONDS = 5.0  # that rendering one conversation may take; it takes a millisecond
