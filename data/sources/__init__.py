"""Readers of caption corpora in the layouts that their authors publish.

A reader yields every row, usable or not; [`~rsmclip.data.faults.find_fault`] checks the rows of all corpora. In place
of a malformed annotation of one image, it yields a [`UserError`]. It raises [`UserError`] only if it cannot read a
file.
"""

from importlib import import_module
from pathlib import Path

from rsmclip.core.errors import UserError
from rsmclip.data.sources.protocol import Source

READERS = {  # module and class by name of the source; `open_source` imports the module
    "hub": "hub.HubDataset",
    "imagefolder": "imagefolder.ImageFolder",
    "nwpu": "nwpu.NWPUCaptions",
    "rsicd": "karpathy.RSICD",
    "rsitmd": "karpathy.RSITMD",
    "sydney": "karpathy.SydneyCaptions",
    "ucm": "karpathy.UCMCaptions",
    "webdataset": "webdataset.WebDatasetShards",
}


def named_source(argument: object) -> Source:
    """Return the reader of a corpus that is written as `NAME=DIR`. Raises [`UserError`] for another form."""
    name, _, place = str(argument).partition("=")
    if not (name and place):
        raise UserError(f"a source is written as NAME=DIR, not as {argument!r}")
    return open_source(name, place)


def open_source(name: str, place: str | Path) -> Source:
    """
    Return the reader of a corpus.

    Args:
        name (`str`): One of `READERS`.
        place (`str` or `Path`):
            Folder of the corpus; for `hub` also an id, for `webdataset` also a pattern of files. `imagefolder`, `hub`
            and `webdataset` take options after it: `"DIR,captions=COLUMN"`.

    Raises:
        [`UserError`]: There is no reader of this name, no such folder, or no such option.
    """
    if name not in READERS:
        raise UserError(f"unknown source {name!r}; known sources are {', '.join(READERS)}")
    module, reader = READERS[name].split(".")
    return getattr(import_module(f"{__name__}.{module}"), reader)(str(place))
