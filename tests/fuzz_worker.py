"""Runs command lines, one JSON list per line of stdin, and says what came of each. For test_fuzz.py: it may die, the tests may not.

An answer: {"code", "error" (what was written to stderr, by anybody), "seconds"}. Whatever a native library prints counts, too.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import sys
import tempfile
import time


def main() -> None:
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)
    import forks

    from ernie_cli import app

    forks.install()  # Paddle would be loaded twice for each conversion
    app.build = functools.cache(app.build)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as captured:
            kept = os.dup(2)
            os.dup2(captured.fileno(), 2)
            begun = time.monotonic()
            try:
                code = app.main(json.loads(line))
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
                os.close(kept)
            captured.seek(0)
            error = captured.read().decode(errors="replace")
        answers.write(json.dumps({"code": code, "error": error, "seconds": time.monotonic() - begun}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
