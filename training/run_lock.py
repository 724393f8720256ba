"""One run at a time in a folder: the run locks a file in it, and the system releases the lock when the process ends.

The lock is POSIX's (`fcntl.lockf`): it belongs to the process. Loader workers, which can outlive a killed run by
seconds, do not have it. Whether another machine sees it depends on the shared file system (NFS 4 shows it).
"""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rsmclip.core.errors import UserError, user_errors
from rsmclip.models.folder import LOCK

HELD: dict[Path, IO[str]] = {}  # open files: closing any file of this name in the process would release the lock


def hold(folder: Path, create: bool) -> None:
    """
    Lock the folder of a run until [`releases`] or the end of this process. Do nothing if this process has the lock.

    Args:
        folder (`Path`): Folder of a run.
        create (`bool`): Whether to create the file. Without the file, no run has the lock.

    Raises:
        [`UserError`]: Another run has the lock. The line names its process and its machine.
    """
    if os.name != "posix":
        return
    import fcntl  # Windows has no such module

    path = folder.resolve() / LOCK
    while path not in HELD and (create or path.is_file()):
        with user_errors(OSError, prefix=f"output_dir {folder} cannot be written"):
            file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read() or "another process"
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                print(f"{path} cannot be locked ({error.strerror}): start no second run in this folder")
                return
            raise UserError(
                f"a run in {folder} has not ended yet ({owner}): wait for it, end it, or choose another --output_dir"
            ) from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file.close()  # its run has just ended and deleted it
            continue
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, end="", flush=True)
        HELD[path] = file


@contextmanager
def releases() -> Iterator[None]:
    """Delete and release the locks of this process at the end. Also a decorator."""
    try:
        yield
    finally:
        while HELD:
            path, file = HELD.popitem()
            path.unlink(missing_ok=True)
            file.close()
