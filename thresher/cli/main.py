"""The `thresher` command: its verbs, its exit codes, and what happens to errors.

Exit codes: 0 done, 2 the user's error (one sentence on stderr), 75 the machine ended part of the
work, or a disk or share is away for a time (run the same command again to complete it), 130
interrupted and 143 terminated (run the same command again to continue), 1 an internal error.
"""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from typing import NamedTuple

from typer.exceptions import TyperException

from thresher.cli import leaving, signals
from thresher.cli.addresses import resolve_addresses
from thresher.cli.commands import build_app
from thresher.cli.output import print_block, print_line
from thresher.cli.streams import guard_streams
from thresher.cli.usage import describe_usage_error
from thresher.errors import (
    TEMPORARY,
    USER_ERROR,
    ProblemsError,
    ThresherError,
    describe_os_error,
    find_exit_code,
    is_panic,
    is_storage_error,
)
from thresher.numeric.compilation import announce_compilation
from thresher.printable import clean_foreign_messages

_COMPLETION = "_THRESHER_COMPLETE"  # set by a shell that asks for completions
_HOME = re.compile(r"^(--[\w-]+=)?~(?=/|$)")


def app(words: list[str]) -> object:
    """Run the command that the words name; returns its exit code, if it has one."""
    # a configuration file may have a part for each command, so it needs to know all of them
    is_alone = words and _COMPLETION not in os.environ and not any(word.startswith("--config") for word in words)
    verb = words[0] if is_alone else None
    return build_app(verb)(args=words, prog_name="thresher", standalone_mode=False)


def run() -> None:
    """Run the command line and exit with the code that fits."""
    guard_streams()
    leaving.begin()
    signals.unwind_on_signals()
    clean_foreign_messages()
    try:
        code = main(sys.argv[1:])
    except SystemExit as ending:
        if not isinstance(ending.code, int | None):
            raise
        code = ending.code or 0
    leaving.leave(code)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; a user's error becomes one sentence."""
    reporter = _ErrorReporter(is_debug="--debug" in arguments, is_json="--log-json" in arguments)
    try:
        words = resolve_addresses([_expand_home(word) for word in arguments if word != "--debug"])
        if not {"--quiet", "-q"} & set(words):
            announce_compilation(partial(print_line, err=True))
        code = app(words)
        sys.stdout.flush()
    except (SystemExit, BrokenPipeError) as ending:
        # The reader of our output has gone, for which typer would exit with 1: nothing is wrong.
        # Keep Python from complaining when it flushes at exit.
        if not isinstance(ending, BrokenPipeError) and not isinstance(ending.__context__, BrokenPipeError):
            return reporter.end(ending)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ThresherError as error:
        return reporter.fail(str(error), find_exit_code(error), is_block=isinstance(error, ProblemsError))
    except TyperException as error:
        return reporter.misuse(error)
    except OSError as error:
        if not is_storage_error(error):
            return reporter.crash(error)
        code = find_exit_code(error)
        return reporter.fail(_describe_storage_error(error, is_temporary=code == TEMPORARY), code)
    except BaseException as error:  # noqa: BLE001 - the last place that can tell an internal error from a user's
        return reporter.crash(error)
    if code == 130:
        return reporter.leave(code)
    return code if isinstance(code, int) else 0


def _describe_storage_error(error: OSError, *, is_temporary: bool) -> str:
    where = f"{error.filename or _find_lost_folder()}: ".removeprefix(": ")
    then = "wait until it is back" if is_temporary else "fix that"
    return f"{where}could not be written or read: {describe_os_error(error)}; {then} and run the same command again"


def _find_lost_folder() -> str:
    """Return "the current folder" where it is gone: the system names no path then."""
    try:
        os.getcwd()
    except OSError:
        return "the current folder"
    return ""


def _expand_home(word: str) -> str:
    """Expand a leading ~, which the shell leaves alone in --out=~/chosen."""
    return _HOME.sub(lambda match: f"{match[1] or ''}{os.path.expanduser('~')}", word)


class _ErrorReporter(NamedTuple):
    """Reports how a command ended: as a sentence, as an object of the log, or by its traceback."""

    is_debug: bool
    is_json: bool

    def fail(self, sentence: str, code: int = USER_ERROR, *, is_block: bool = False) -> int:
        if self.is_debug:
            raise  # the error that is being handled by the caller
        signaled = signals.find_received()
        if signaled is not None:  # what it interrupted made another error of it
            return self.leave(signaled)
        return self.report(sentence, code, prefix="thresher: ", is_block=is_block)

    def misuse(self, error: TyperException) -> int:
        """Report a command line that cannot be parsed."""
        sentence = describe_usage_error(error)
        return self.fail(sentence) if sentence else error.exit_code

    @staticmethod
    def _describe_missing(error: ModuleNotFoundError) -> str | None:
        """Return what to install where a package of an extra is missing."""
        from thresher.cli.doctor import describe_missing

        return describe_missing(error.name or "", "this command")

    def crash(self, error: BaseException) -> int:
        is_internal = isinstance(error, Exception) or is_panic(error)  # else, it ends the process
        if self.is_debug or not is_internal:
            raise error
        code = signals.find_received()
        if code is not None:  # a library that was interrupted made another error of it
            return self.leave(code)
        if isinstance(error, MemoryError):
            detail = f" ({error})" if str(error) else ""
            return self.fail(f"out of memory{detail}; run the same command again with more memory to resume")
        if isinstance(error, ModuleNotFoundError) and (missing := self._describe_missing(error)):
            return self.fail(missing)
        sentence = f"internal error: {type(error).__name__}: {error}"
        return self.report(
            f"{sentence}; run again with --debug for the traceback, and report it", 1, prefix="thresher: "
        )

    def end(self, ending: SystemExit) -> int:
        """Report what has ended the command: a signal, or code that took it for its own process."""
        code = signals.find_received()
        if code is not None:
            return self.leave(code)
        if self.is_debug or _COMPLETION in os.environ:  # which ends so
            raise ending
        sentence = f"internal error: a plug-in or library exited the process (SystemExit: {ending.code})"
        return self.report(f"{sentence}; run again with --debug for the traceback", 1, prefix="thresher: ")

    def leave(self, code: int) -> int:
        """Report a signal by its exit code."""
        return self.report(signals.describe_signal(code), code)

    def report(self, sentence: str, code: int, *, prefix: str = "", is_block: bool = False) -> int:
        if self.is_json:
            from thresher.cli.curate_job import log_line

            log_line("error", "error", sentence, {"exit_code": code})
        else:
            (print_block if is_block else print_line)(f"{prefix}{sentence}", err=True)
        return code
