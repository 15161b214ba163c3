"""Is it the disk? A failure because a place is full, or cannot be written, says nothing of what
was tried: it would fail again for everything.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # EFBIG: what `ulimit -f` allows is used
_BYTES = 1_000_000  # written, to see whether that is possible
# as the system says it, NumPy, and Python where it finds no place for temporary files
_SAID = re.compile(
    rf"{'|'.join(re.escape(os.strerror(n)) for n in FULL)}|\d+ requested and \d+ written|No usable temporary directory"
)


def fault(reason: str, places: Iterable[Path]) -> str | None:
    """What is wrong with a disk, if that is why something failed with this reason: it says so, or
    one of the places (or the one for temporary files) cannot be written now. None if nothing is."""
    if found := _SAID.search(reason):
        said = next(line.strip() for line in reason.splitlines() if found[0] in line)
        return said[:500]
    try:
        for place in (*places, Path(tempfile.gettempdir())):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as f:
                f.write(bytes(_BYTES))
                f.flush()
                os.fsync(f.fileno())
    except OSError as e:
        return str(e)
    return None
