"""Readers of caption corpora in the layouts that their authors publish.

A reader yields what the corpus contains. It stops only at what it cannot read at all, such as a damaged annotation
file. [`~rsmclip.data.faults.find_fault`] decides for all corpora whether a row is usable.
"""

from importlib import import_module

from rsmclip.core.errors import UserError
from rsmclip.data.sources.protocol import Source, SourceRow

READERS = {  # class by name; its module is imported only when it is used
    "hub": "hub.HubDataset",
    "imagefolder": "imagefolder.ImageFolder",
    "nwpu": "nwpu.NWPUCaptions",
    "rsicd": "karpathy.RSICD",
    "rsitmd": "karpathy.RSITMD",
    "sydney": "karpathy.SydneyCaptions",
    "ucm": "karpathy.UCMCaptions",
}


def open_source(name: str, place: str) -> Source:
    """Return the reader of a corpus; `place` is its folder, or for `hub` a dataset id and options."""
    if name not in READERS:
        raise UserError(f"unknown source {name!r}; known sources are {', '.join(READERS)}")
    module, reader = READERS[name].split(".")
    return getattr(import_module(f"{__name__}.{module}"), reader)(place)


__all__ = ["READERS", "Source", "SourceRow", "open_source"]
