"""Pages of the documentation that are made from the code, when mkdocs builds it (mkdocs.yml)."""

import re
from pathlib import Path
from typing import Any

from typer import Context
from typer.main import get_command

from thresher.cli.command import list_all_commands
from thresher.cli.commands import build_app

ROOT = Path(__file__).parent.parent
MARKUP = re.compile(r"\[/?(?:bold|dim|italic)\]")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the commands, or the changelog, in the place that a page leaves for them."""
    if page.file.src_path == "cli.md":
        return markdown.replace("<!-- commands -->", describe_commands())
    if page.file.src_path == "changelog.md":
        text = (ROOT / "CHANGELOG.md").read_text().partition("\n")[2]
        return markdown.replace("<!-- changelog -->", text.replace("](docs/", "]("))
    return markdown


def describe_commands() -> str:
    """Return a section for each command: what it does, an example, and its options."""
    return "\n\n".join(
        _describe(name, command)
        for name, command in list_all_commands(get_command(build_app())).items()
        if name != "warm-up"
    )


def _describe(name: str, command: Any) -> str:
    words = MARKUP.sub("", command.help or "").strip()
    lines = [f"## thresher {name}", "", words, "", "| option | default | |", "|---|---|---|"]
    for param in command.get_params(Context(command, info_name=name)):
        if getattr(param, "hidden", False) or "--help" in param.opts:
            continue
        names = ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts) if flag.startswith("-"))
        names = names or f"`{(param.metavar or param.name).upper()}`"
        default = "required" if param.required else _format_default(param)
        text = MARKUP.sub("", getattr(param, "help", None) or "").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {names} | {default} | {text} |")
    return "\n".join(lines)


def _format_default(param: Any) -> str:
    value = param.default
    if value is None or value is False or callable(value) or value in ((), []):
        return ""
    return f"`{getattr(value, 'value', value)}`"
