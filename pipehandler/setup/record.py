"""The record of what setup changed on this host, for `--remove`: root's JSON file beside the configuration.

A change is recorded before it is made, so that it can be undone after a crash in between.
"""

import json
import os
from dataclasses import dataclass, field

from .step import Change, SetupError

_FORMAT = 1


@dataclass
class Record:
    """The changes, oldest first. `save` writes them to the file at `path`."""

    path: str
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def load(cls, path: str) -> "Record":
        """Read the file; if it does not exist, return an empty record. Raises SetupError if it cannot be read."""
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            if content["format"] != _FORMAT:
                raise SetupError(f"{path} was written by another version of pipehandler: format {content['format']!r}")
            return cls(path, [Change(**change) for change in content["changes"]])
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise SetupError(f"the record {path} cannot be read: {error}; restore it from a backup") from error

    def find(self, kind: str, name: str) -> Change | None:
        """Return the recorded change of this kind and name; None if there is none."""
        return next((change for change in self.changes if (change.kind, change.name) == (kind, name)), None)

    def add(self, change: Change) -> None:
        """Add a change. If setup changed the same thing before, the value before the first change is kept."""
        known = self.find(change.kind, change.name)
        if known is None:
            self.changes.append(change)
        else:
            self.changes[self.changes.index(known)] = known._replace(after=change.after)

    def discard(self, change: Change) -> None:
        """Remove a change that was undone."""
        self.changes.remove(change)

    def save(self) -> None:
        """Write the file so that a crash leaves the old or the new one; remove it if there are no changes.

        Raises SetupError.
        """
        try:
            self._save()
        except OSError as error:
            raise SetupError(
                f"the record {self.path}, without which --remove undoes nothing, cannot be written: {error.strerror};"
                " correct that, and run it again"
            ) from error

    def _save(self) -> None:
        if not self.changes:
            if os.path.exists(self.path):
                os.remove(self.path)
            return
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            os.makedirs(folder)
            os.chmod(folder, 0o755)  # noqa: S103 # whatever the umask: the account of the transport reads its configuration there
            self.changes.insert(0, Change("folder", folder))
        new = f"{self.path}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "changes": [change._asdict() for change in self.changes]}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
