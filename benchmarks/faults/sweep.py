"""A fault at every change of files that a command makes: does the next run end as if undisturbed?

    python -m benchmarks.faults.sweep                       everything (an hour on one core)
    python -m benchmarks.faults.sweep --commands select     some commands

For every n, the n-th change fails as on a full disk, or with EIO, or the process is killed there.
Then the same command runs again. `tests/faults` runs a sample of it. Writes
benchmarks/results/faults.json, in which results of other commands stay. A sweep that was stopped
goes on where it was, if no code has changed; what it has done so far lies beside the result.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import thresher
from benchmarks.faults.commands import Command, build_commands, read_files
from benchmarks.faults.fork_server import FAULTS, Ending, Fault, ForkServer

RESULT = Path(__file__).parents[1] / "results" / "faults.json"
RETRY, USER, KILLED = 75, 2, -9
# Names that differ in every run.
_RANDOM = re.compile(r"[0-9a-f]{32}|(?<=-)[0-9a-f]{12}|\.tmp\w{6}$|(?<=\.)\d+$")
_UNSEEN = re.compile(r"^.*/\.tmp\w{6}$")
_NO_ROOM = {"unlink", "rmdir", "truncate", "chmod"}  # which need no room on a disk


@dataclass
class Sweep:
    """One command, and what it comes to undisturbed.

    Attributes:
        command: the command.
        server: runs it.
        folder: for the folders it runs in.
        changes: kind, path and other path of each change of an undisturbed run.
        expected: files of its result.
        before: files of the result that was there before, or None.
    """

    command: Command
    server: ForkServer
    folder: Path
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    expected: dict[str, bytes] | None = None
    before: dict[str, bytes] | None = None
    _states: set[tuple[int, str]] = field(default_factory=set)

    @property
    def n_next_runs(self) -> int:
        """How many different states a next run has started from."""
        return len(self._states)

    def prepare(self) -> Sweep:
        """Make the state that every run starts from, and run once undisturbed."""
        self.command.prepare(self.server, self._start)
        self.before = self.command.read_result(self._start)
        folder, trace = self._copy_start(), self.folder / "trace"
        ending = self.server.run(self.command.arguments(folder), folder, trace=trace)
        if ending.status:
            raise AssertionError(f"{self.command.name} ended with {ending.status}: {ending.output}")
        self.expected = self.command.read_result(folder)
        for line in trace.read_text().splitlines():
            kind, path, other = line.split("\t")
            paths = [f"{named}/".removeprefix(f"{folder}/").rstrip("/") for named in (path, other)]
            self.changes.append((kind, *paths))
        return self

    @property
    def _start(self) -> Path:
        return self.folder / "start"

    def _copy_start(self) -> Path:
        """Return a folder in the state to start from; always the same, for paths are in results."""
        folder = self.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._start, folder, symlinks=True)
        return folder

    def list_places(self, fault: Fault, *, is_thin: bool = False) -> list[int]:
        """Return the numbers of the changes at which a fault can happen.

        Args:
            fault: that happens.
            is_thin: of the writes in a row into one file, only the first and the last.
        """
        places = []
        for number, (kind, path, _) in enumerate(self.changes, 1):
            beside = (self.changes[max(0, number - 2)], self.changes[min(number, len(self.changes) - 1)])
            is_between = kind == "write" and all(other[:2] == (kind, path) for other in beside)
            if (fault.action != "f" or kind not in _NO_ROOM) and not (is_thin and is_between):
                places.append(number)
        return places

    def inject(self, at: int, fault: Fault) -> list[str]:
        """Run with a fault and once more without; return what was wrong, in a few words each."""
        folder = self._copy_start()
        arguments = self.command.arguments(folder)
        first = self.server.run(arguments, folder, at=at, fault=fault)
        problems = [*self._check_ending(first, folder, fault), *self._check_visible(first, folder)]
        state = self._describe_state(folder)
        if problems or (first.status, state) not in self._states:
            self._states.add((first.status, state))
            problems += self._check_next(first, folder)
        kind, path, _ = self.changes[at - 1]
        place = f"{self.command.name}, {fault.name} at {at} ({kind} {path})"
        return [f"{place}: {problem}" for problem in problems]

    def _check_ending(self, ending: Ending, folder: Path, fault: Fault) -> list[str]:
        """Say what is wrong with the end of a disturbed run: no exit code, no sentence, no path."""
        if fault.action == "k":
            return [] if ending.status in (KILLED, 0) else [f"ended with {ending.status}: {ending.output[-500:]}"]
        if ending.status == 0:
            return []
        if ending.status not in (USER, RETRY):
            return [f"ended with {ending.status}: {ending.output[-500:]}"]
        lines = ending.output.strip().splitlines()
        if len(lines) != 1:
            return [f"said {len(lines)} lines: {ending.output[-500:]}"]
        return [] if str(folder) in lines[0] else [f"named no path: {lines[0]}"]

    def _check_visible(self, ending: Ending, folder: Path) -> list[str]:
        """Say what is wrong with the result that can be seen after a disturbed run."""
        result = self.command.read_result(folder)
        if ending.status == 0 and result != self.expected:
            return ["exit code 0 without the result"]
        return [] if result in (self.before, self.expected) else [f"half a result: {_compare(result, self.expected)}"]

    def _check_next(self, first: Ending, folder: Path) -> list[str]:
        """Run again, and say what differs from an undisturbed run."""
        ending = self.server.run(self.command.arguments(folder), folder)
        is_announced = first.status == 0
        if ending.status != 0 and not (is_announced and ending.status == 3):
            return [f"the next run ended with {ending.status}: {ending.output[-500:]}"]
        result = self.command.read_result(folder)
        problems = [] if result == self.expected else [f"the next result differs: {_compare(result, self.expected)}"]
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        left += [f"tmp/{path.name}" for path in (folder / "tmp").glob("thresher-*")]
        return problems if not left else [*problems, f"left behind: {left}"]

    def describe_changes(self) -> str:
        """Return a hash of the changes, without what differs between any two runs."""
        lines = ["\t".join((kind, *(_RANDOM.sub("*", path) for path in paths))) for kind, *paths in self.changes]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def _describe_state(self, folder: Path) -> str:
        """Return a hash of all files, without what differs between any two runs.

        The run that follows depends on nothing else: equal states need it only once.
        """
        state = hashlib.sha256()
        for name, data in sorted((_RANDOM.sub("*", name), data) for name, data in read_files(folder).items()):
            state.update(f"{name}\0{len(data)}\0".encode() + data)
        return state.hexdigest()


def _compare(result: dict[str, bytes] | None, expected: dict[str, bytes] | None) -> str:
    if result is None or expected is None:
        return "it is missing"
    names = result.keys() | expected.keys()
    return ", ".join(sorted(name for name in names if result.get(name) != expected.get(name))[:5])


def find_unsynced(changes: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return what a loss of power could lose: files that got their name before their content.

    A file must be synced after its last write and before it, or a folder above it, is renamed; and
    the folder that holds the new name must be synced after that, unless it is of the cache: what is
    lost there is computed again.
    """
    dirty: set[str] = set()
    names: set[str] = set()  # given, in folders that were not synced since
    unsynced = []
    for kind, path, other in changes:
        if kind in ("write", "truncate"):
            # The rename of safetensors' temporary file is a call that the library does not see.
            dirty |= {path} - set(_UNSEEN.findall(path))
        elif kind == "fsync":
            dirty.discard(path)
            names = {name for name in names if name.rpartition("/")[0] != path}
        elif kind in ("unlink", "rmdir"):
            dirty.discard(path)
            names.discard(path)
        elif kind == "exchange":  # two synced folders
            names.add(path)
        elif kind == "rename":
            unsynced += [f"{one} was renamed to {path}" for one in sorted(dirty) if _is_part(one, other)]
            dirty = {path + one.removeprefix(other) if _is_part(one, other) else one for one in dirty}
            names = {path + one.removeprefix(other) if _is_part(one, other) else one for one in names} | {path}
    lost = sorted(name for name in names if not name.startswith("cache/"))
    return unsynced + [f"the name of {name} was not synced" for name in lost]


def _is_part(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class Journal:
    """What a sweep has done, one JSON line each, so that one that was stopped goes on.

    A line counts for the code that it was written by, and for the same changes of the command.

    Attributes:
        path: of the file.
        code: hash of the code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = _hash_code()
        self._done: dict[str, list[str]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # half a line
                code, place, problems = json.loads(line)
                self._done |= {place: problems} if code == self.code else {}

    def inject(self, sweep: Sweep, at: int, fault: Fault) -> list[str]:
        """Return the problems of one place, which are found out unless they are known."""
        place = f"{sweep.command.name}\t{fault.name}\t{at}\t{sweep.describe_changes()}"
        if place not in self._done:
            self._done[place] = sweep.inject(at, fault)
            with self.path.open("a") as file:
                file.write(json.dumps([self.code, place, self._done[place]]) + "\n")
        return self._done[place]


def _hash_code() -> str:
    code = hashlib.sha256()
    for path in sorted([*Path(thresher.__file__).parent.rglob("*.py"), *Path(__file__).parent.iterdir()]):
        code.update(path.read_bytes() if path.is_file() else b"")
    return code.hexdigest()[:16]


def measure(sweep: Sweep, faults: Iterable[Fault], *, is_thin: bool, journal: Journal | None = None) -> dict[str, Any]:
    """Inject every fault at every place; return counts and problems."""
    began, problems, n = time.monotonic(), [], Counter()
    for fault in faults:
        for at in sweep.list_places(fault, is_thin=is_thin):
            n[fault.name] += 1
            print(f"{sweep.command.name}: {fault.name} at {at} of {len(sweep.changes)}", file=sys.stderr, flush=True)
            for problem in journal.inject(sweep, at, fault) if journal else sweep.inject(at, fault):
                print(problem, flush=True)
                problems.append(problem)
    changes = Counter(kind for kind, *_ in sweep.changes)
    return {
        "changes": dict(changes),
        "injected": dict(n),
        "states_continued_from": sweep.n_next_runs,
        "unsynced": find_unsynced(sweep.changes),
        "problems": problems,
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Run the sweep and write the result file."""
    from tests.conftest import write_tiny_bert

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="*", help="only these")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), help="only these")
    parser.add_argument("--thin", action="store_true", help="of writes in a row into one file, the first and the last")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    journal = Journal(given.out.with_suffix(".partial"))
    with tempfile.TemporaryDirectory() as scratch, ForkServer(Path(scratch)) as server:
        commands = build_commands(write_tiny_bert(Path(scratch) / "model"))
        for name in given.commands or commands:
            folder = Path(scratch) / name.replace(" ", "-")
            sweep = Sweep(commands[name], server, folder).prepare()
            faults = [FAULTS[fault] for fault in given.faults]
            measured = measure(sweep, faults, is_thin=given.thin, journal=journal)
            results[name] = {"is_thin": given.thin, "code": journal.code, **measured}
            given.out.write_text(json.dumps(results, indent=1) + "\n")
            print(name, {**results[name], "problems": len(results[name]["problems"])}, flush=True)
    if not given.thin:  # else, a whole sweep into the same file goes on from here
        journal.path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
