"""Readers of caption corpora in the layouts their authors publish: a file here with a `READER` is one, by its name.

A reader yields what the corpus says and stops only at what it cannot read at all, such as a damaged annotation file.
Whether a row is usable is judged by [`~rsmclip.data.faults.find_fault`], in one place for all corpora.
"""

import pkgutil
from importlib import import_module

from rsmclip.data.sources.protocol import Source, SourceError, SourceRow

MODULES = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
READERS: dict[str, type[Source]] = {
    module.__name__.rpartition(".")[2]: module.READER for module in MODULES if hasattr(module, "READER")
}


def open_source(name: str, place: str) -> Source:
    """
    The reader of a corpus.

    Args:
        name (`str`): One of `READERS`.
        place (`str`): Folder with its files; for `hub` the id of a dataset.

    Raises:
        [`SourceError`]: There is no such reader or folder.
    """
    if name not in READERS:
        raise SourceError(f"unknown source {name!r}; known are {', '.join(READERS)}")
    return READERS[name](place)


__all__ = ["READERS", "Source", "SourceError", "SourceRow", "open_source"]
