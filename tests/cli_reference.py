"""The reference of the command line, whose second part ``./dev docs`` writes from the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from runlane.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
MARK = "<!-- From here on, `./dev docs` writes this page from the commands. -->\n"
#: Options that the first part of the page documents once, for all commands that have them.
SHARED = ("--url", "--api-key", "--header", "--profile", "--json")


def leaves(command: click.Command, name: str = "runlane") -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is no group, with its name."""
    if isinstance(command, click.Group):
        for sub, found in command.commands.items():
            yield from leaves(found, f"{name} {sub}")
    elif not command.hidden:
        yield name, command


def options_of(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and not one.hidden]


def example_of(command: click.Command) -> str | None:
    """Return the command line of the example that help shows."""
    return None if command.epilog is None else command.epilog.removeprefix("Example: ")


def section(name: str, command: click.Command) -> str:
    arguments = " ".join(
        one.make_metavar(click.Context(command)) for one in command.params if one not in options_of(command)
    )
    lines = [f"## `{name}`", "", f"`{name} {arguments}`".replace(" `", "`"), "", _paragraphs(command.help or ""), ""]
    if example := example_of(command):
        lines += ["```sh", example, "```", ""]
    own = [one for one in options_of(command) if one.opts[0] not in SHARED]
    for option in own:
        lines += [f"### `{option.opts[0]}`", "", _described(option), ""]
    if shared := [f"`{one.opts[0]}`" for one in options_of(command) if one.opts[0] in SHARED]:
        lines += [f"It takes {', '.join(shared)}.", ""]
    return "\n".join(lines)


def _described(option: click.Option) -> str:
    text = re.sub(r"\s*\[default: (.*)\]", r" Default: \1.", option.help or "")
    if isinstance(option.type, click.Choice):
        text += f" One of {', '.join(f'`{choice}`' for choice in option.type.choices)}."
    if option.show_default:
        text += f" Default: `{option.default}`."
    if option.envvar:
        text += f" Environment: `{option.envvar}`."
    return text


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def written(page: str) -> str:
    """Return *page* with its second part as the commands are now."""
    first, mark, _ = page.partition(MARK)
    by_hand = set(re.findall(r"^## `(runlane [^`]+)`", first, re.MULTILINE))
    parts = [section(name, command) for name, command in leaves(app) if name not in by_hand]
    return first + mark + "\n" + "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
