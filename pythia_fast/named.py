"""Objects of a user's own by their names: of a module or of a file."""

import hashlib
import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from pythia_fast.errors import ArgumentError

_OF_A_FOLDER = re.compile(r"(?<=\.py)@[0-9a-f]{12}\Z")


def load(name: str, what: str) -> Any:
    """What "module:name" or "path/file.py:name" stands for; the module is imported, the file run.

    A file `mine.py` becomes the module "mine.py@…", after its folder, which is in nobody's way. It
    is not run again while its text is the same. ArgumentError if there is no such object, be it for
    an error of the module, or `name` is none; `what` it is to be is for the message.
    """
    module_name, _, attributes = name.rpartition(":")
    if not module_name or not attributes:
        raise ArgumentError(
            f"{name!r} does not name a {what}: give module:{what} or file.py:{what}"
        )
    is_file = module_name.endswith(".py")
    try:
        found: Any = (
            _of_file(Path(module_name)) if is_file else importlib.import_module(module_name)
        )
    except ArgumentError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's module does
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            raise ArgumentError(
                f"there is no module {module_name!r}, here or among the installed ones"
            ) from error
        raise ArgumentError(f"{module_name!r} cannot be imported: {told(error)}") from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ArgumentError(
                f"{'file' if is_file else 'module'} {module_name!r} has no {attributes!r}"
            )
        found = getattr(found, attribute)
    return found


def find_here() -> None:
    """Let modules of the current folder be found, as with `python -m`."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def told(error: BaseException, ours: str = __file__) -> str:
    """An error in one line, with the place where it arose if that is not the file `ours`."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename == ours:
        return words
    return f"{words} ({frames[-1].filename}:{frames[-1].lineno})"


def shown(module: str) -> str:
    """A module's name as it is told: that of a file without what stands for the folder."""
    return _OF_A_FOLDER.sub("", module)


def _of_file(path: Path) -> ModuleType:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error.strerror}") from error
    whole = path.absolute()
    file = str(whole)
    name = f"{path.name}@{hashlib.sha256(bytes(whole.parent)).hexdigest()[:12]}"
    known = sys.modules.get(name)
    if known is not None and (known.__file__, getattr(known, "__text__", None)) == (file, text):
        return known
    module = ModuleType(name)
    vars(module).update(__file__=file, __text__=text)
    sys.modules[name] = module
    try:
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known
        raise
    return module
