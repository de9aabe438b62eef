"""The error tree. Each class owns its exit code and carries a hint; only `app.main` prints them.

ErnieError                 1   a bug, or a failure nobody classed yet
├── UsageError             2   the command line asks for something that makes no sense
├── InputError             3   a file or folder is broken, missing or not what it says
├── UnsupportedError       4   an operator, architecture, format or route nobody knows
├── MissingError           5   a dependency or a piece of hardware is not here
├── QualityError           6   a parity or quality gate failed
├── ResourceError          7   out of memory or disk
├── NetworkError           8   a hub could not be reached, or answered with an error
└── Interrupted          130   Ctrl-C
"""


class ErnieError(Exception):
    """What is wrong and where, plus a hint that ends with the next thing to type."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ErnieError):
    exit_code = 2


class InputError(ErnieError):
    exit_code = 3


class UnsupportedError(ErnieError):
    exit_code = 4


class MissingError(ErnieError):
    exit_code = 5


class QualityError(ErnieError):
    exit_code = 6


class ResourceError(ErnieError):
    exit_code = 7


class NetworkError(ErnieError):
    exit_code = 8


class Interrupted(ErnieError):
    exit_code = 130


class Terminated(BaseException):
    """Somebody ends the process (SIGTERM, SIGHUP): no error of ours, and nothing that may be waited for or tried again."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
