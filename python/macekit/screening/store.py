# SPDX-License-Identifier: MIT
"""Results of a screening on disk: a line for each structure, written when it ends, so that a run that is killed loses none and computes none again."""

from __future__ import annotations

import hashlib
import json
import os

from ase.io.jsonio import decode, encode


class Store:
    """The folder of a screening: run.json says what was asked, results.jsonl holds what came out."""

    def __init__(self, folder, settings: dict):
        self.folder = os.fspath(folder)
        os.makedirs(self.folder, exist_ok=True)
        self._path = os.path.join(self.folder, "results.jsonl")
        self._lock(self.folder)
        run = os.path.join(self.folder, "run.json")
        wanted = json.loads(json.dumps(settings))
        if os.path.exists(run):
            with open(run, encoding="utf-8") as file:
                known = json.load(file)
            for key in sorted(set(known) | set(wanted)):
                if known.get(key) != wanted.get(key):
                    raise ValueError(f"{self.folder} holds a screening with {key} = {_short(known.get(key))}, now it is {_short(wanted.get(key))}: choose another folder, or delete this one.")
        self._run, self._settings = run, wanted
        self.lines = self._read()

    def _lock(self, folder):
        import fcntl

        self._lock_file = open(os.path.join(folder, ".lock"), "w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder}: another screening is writing here; wait for it or choose another folder.") from None

    def _read(self) -> dict:
        """{index: line}. A last line that was cut by a kill is taken away."""
        lines, good = {}, 0
        if os.path.exists(self._path):
            with open(self._path, "rb") as file:
                for text in file:
                    try:
                        line = decode(text.decode()) if text.endswith(b"\n") else None
                    except ValueError:
                        line = None
                    if line is None:
                        break
                    lines[line["index"]] = line
                    good += len(text)
            if good < os.path.getsize(self._path):
                os.truncate(self._path, good)
        return lines

    def add(self, line: dict):
        if not os.path.exists(self._run):  # not before there is a result: a run that began with a wrong option leaves nothing behind that binds
            write_file(self._run, json.dumps(self._settings, indent=1))
        text = (encode(line) + "\n").encode()
        with open(self._path, "ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.lines[line["index"]] = line


def digest(*parts) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else f"{part}\n".encode())
    return sha.hexdigest()[:16]


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."


def write_file(path, text):
    temporary = f"{path}.tmp{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
