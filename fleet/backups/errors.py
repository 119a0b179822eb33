"""What can be wrong with a backup, or with the place where it is to be restored.

I/O: none.
"""

from typing import ClassVar

from shared.errors import BadInputError, BrokenError, RefusedError


class BackupDamagedError(RefusedError):
    """The file is no backup, is cut off, or was changed."""

    code = "E_BACKUP_DAMAGED"
    default_remedy = "use another copy or an older backup; `flotilla backup verify FILE` tells which one is whole"


class BackupNewerError(RefusedError):
    """A newer Flotilla wrote the file."""

    code = "E_BACKUP_NEWER"
    default_remedy = "install the version that wrote it, or a newer one; then repeat"


class PassphraseError(BadInputError):
    """The passphrase does not open the backup, or there is none."""

    code = "E_PASSPHRASE"
    default_remedy = "write it into a file and give that: --passphrase-file FILE"


class NotEmptyError(RefusedError):
    """There is a manager's data already where a backup is to be restored."""

    code = "E_NOT_EMPTY"
    status: ClassVar[int] = 409
    default_remedy = "restore into another --data-dir, or give --replace: what is there is set aside, not deleted"


class RestoringError(BrokenError):
    """A restore of this data folder did not come to its end."""

    code = "E_RESTORING"
    default_remedy = "type the same `flotilla backup restore FILE` again; repeating it is safe"
