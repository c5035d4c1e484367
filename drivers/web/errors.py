"""What goes wrong on the web, as errors that a model can act on.

AppError
└── WebError            anything below
    ├── AddressRefused  an address that is not gone to: private, encoded, of another scheme or port
    ├── PageFailed      no connection, a status that is none of success, or bytes that are no page
    ├── PageTimeout     a page that did not finish in time
    ├── PageTooLarge    more than is taken, counted after unpacking
    ├── RedirectLoop    more redirects than are followed
    ├── BadCertificate  an https server that cannot prove who it is
    ├── NoPage          nothing is open, or not what the call names; or the page changed under it
    ├── NoElement       no link, button or field of that name
    ├── ChromiumMissing there is no Chromium, or it cannot be confined here
    ├── DownloadFailed  a file that could not be kept
    └── SearchFailed    the search engine did not answer, or not as it should
"""

from llmos.abi.errors import AppError, BadArguments


class WebError(AppError):
    """Anything about the web."""


class AddressRefused(WebError):
    """An address that is not gone to."""


class PageFailed(WebError):
    """No connection, a status that is none of success, or bytes that are no page."""


class PageTimeout(WebError):
    """A page that did not finish in time."""


class PageTooLarge(WebError):
    """More than is taken, counted after unpacking."""


class RedirectLoop(WebError):
    """More redirects than are followed."""


class BadCertificate(WebError):
    """An https server that cannot prove who it is."""


class NoPage(WebError, BadArguments):
    """Nothing is open, or not what the call names; or the page changed under it. Nothing was done."""


class NoElement(WebError, BadArguments):
    """No link, button or field of that name. Nothing was done."""


class ChromiumMissing(WebError):
    """There is no Chromium, or it cannot be confined here."""


class DownloadFailed(WebError):
    """A file that could not be kept."""


class SearchFailed(WebError):
    """The search engine did not answer, or not as it should."""


def bad_certificate(host: str, why: str) -> BadCertificate:
    """What both readers say of a server whose certificate does not hold."""
    return BadCertificate(
        f"{host} cannot prove that it is {host}",
        why=f"its certificate is not valid ({why})",
        do="do not go there; if it is yours, give it a certificate that this machine trusts",
    )
