"""What is wrong with a command line that cannot be parsed, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from typer.exceptions import TyperException

from thresher.cli.spellings import find_name

_REWORDED = {  # what the parser says of a value, and what we say
    "Value error, ": "",
    ". Did you mean": "; did you mean",
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "must be a number",
    "Input should be greater than or equal to": "must be at least",
    "Input should be less than or equal to": "must be at most",
    "Input should be": "must be",
}
_EXTRA = "Got unexpected extra argument"
_MEANT = {  # commands of git and cargo
    "help": "no such command 'help'; did you mean 'thresher COMMAND --help'?",
    "version": "no such command 'version'; did you mean 'thresher --version'?",
}


def describe_usage_error(error: TyperException) -> str:
    """Return the sentence: what is wrong, and where all options of that command are listed.

    It is empty where the command was given without anything, for which its help has been shown
    instead.
    """
    sentence = error.format_message().partition(" (Possible options")[0].rstrip(".")
    if not sentence:
        return ""
    context: Any = getattr(error, "ctx", None)
    command = "thresher" if context is None else context.command_path
    near = _find_similar(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or ())
    setting = _find_train_setting(getattr(error, "option_name", None) or "", context)
    if setting:
        sentence = f"{sentence}; settings of the training are given as --train {setting}=VALUE"
    elif near:
        sentence = f"{sentence}; did you mean {near}?"
    for theirs, ours in _REWORDED.items():
        sentence = sentence.replace(theirs, ours)
    if sentence.startswith(_EXTRA):
        sentence += _advise_extra(sentence.partition("(")[2].rstrip(")"))
    if sentence.startswith("No such command '"):
        sentence = _advise_command(sentence, sentence.split("'")[1], context)
    elif sentence.startswith("Missing "):
        sentence += _show_example(context)
    where = "" if sentence in _MEANT.values() else f"; see '{command} --help'"
    return f"{sentence[0].lower()}{sentence[1:]}{where}"


def _advise_command(sentence: str, word: str, context: Any) -> str:
    """Return the sentence about an unknown command, with what was probably meant."""
    if word in _MEANT:
        return _MEANT[word]
    if context is not None and any(mark in word for mark in ("/", ".")):
        return f"{sentence}; a command comes before the file: {', '.join(context.command.list_commands(context))}"
    return sentence


def _show_example(context: Any) -> str:
    """Return the example in the help of a command, or "" where it has none."""
    text = " ".join((getattr(getattr(context, "command", None), "help", None) or "").split())
    _, found, example = text.partition("[bold]Example:[/bold] ")
    return f"; for example: {example.partition(' [bold]')[0]}" if found else ""


def _find_similar(option: str, possible: Sequence[str]) -> str | None:
    """Return the option that an unknown one is a misspelling of; dashes do not make it similar."""
    by_word = {each.lstrip("-"): each for each in possible}
    near = get_close_matches(option.lstrip("-"), by_word, n=1)
    return by_word[near[0]] if near else None


def _advise_extra(words: str) -> str:
    """Say what to do about words that no argument takes."""
    if any(mark in words for mark in ("/", ".", "*")):
        return "; give several files as a quoted glob ('data/*.jsonl') or as their folder"
    if "=" in words:
        return "; what overrides a config file is NAME=VALUE, with the name of an option"
    return "; leave it out, or quote a value that has spaces"


def _find_train_setting(option: str, context: Any) -> str | None:
    """Return the setting of --train that an unknown option names, of a command that has --train."""
    if context is None or not any("--train" in parameter.opts for parameter in context.command.params):
        return None
    from thresher.trainer.settings import TrainSettings

    return find_name(option.lstrip("-"), [each.name for each in fields(TrainSettings)])
