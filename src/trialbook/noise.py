"""Keeping TensorFlow's start-up notes from between the lines of the command.

They are written by C++ code before any logging is set up, so no log level reaches them; only the file descriptor does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# A line of TensorFlow's C++ logging: level, date or epoch, thread, file; and what it says about itself first.
_NOTE = re.compile(
    rb"^([IWE]\d{4} [\d:.]+ +\d+ \S+:\d+\]|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: )"
)


@contextlib.contextmanager
def without_native_notes() -> Iterator[None]:
    """Hold back what is written to standard error, then pass on all of it but TensorFlow's own notes."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed, as under some service managers
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            lines = [line for line in held if not _NOTE.match(line)]
            if lines:
                os.write(2, b"".join(lines))
