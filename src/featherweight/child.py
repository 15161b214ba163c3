"""How the package starts Python programs of its own: with no module from the folder that happens to
be the current one, which may be somebody else's.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def command(module: str, *words: str) -> list[str]:
    """The command line that runs a module of this package."""
    return [sys.executable, "-P", "-m", module, *words]


def environment(users: bool = False) -> dict[str, str]:
    """This process's, where the package can be found even if it lies on a path that only this
    process knows. users: the modules of the user's program, too, where this process finds them."""
    root = Path(__file__).resolve().parents[1]
    paths = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    if users:
        standard = Path(sysconfig.get_paths()["stdlib"])
        for path in sys.path:
            # a script's folder, and $PYTHONPATH, come before what is installed
            if Path(path or ".").absolute() == standard or path.endswith(".zip"):
                break
            paths.append(str(Path(path or ".").absolute()))
    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    found = os.pathsep.join(dict.fromkeys(paths))
    return {**os.environ, "PYTHONPATH": found} if found else dict(os.environ)
