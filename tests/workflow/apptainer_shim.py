"""A stand-in for Apptainer: records what Snakemake asks for, and runs the command with the programs of the "image".

The image is a folder; its ``bin`` is all of PATH that the command sees beside the system's, as in a real image.
"""

import json
import os
import sys
from pathlib import Path

OPTIONS = ("--home", "--bind", "--pwd")  # that take a value
FLAGS = ("--nv",)


def main(arguments: list[str]) -> None:
    """Answer one command."""
    if arguments == ["--version"]:
        print("apptainer version 1.4.5")
        return
    if arguments[:1] != ["exec"]:
        sys.exit(f"apptainer shim: 'apptainer {' '.join(arguments)}' is not known here")
    rest = arguments[1:]
    options: list[list[str]] = []
    while rest and rest[0].startswith("-"):
        if rest[0] not in (*OPTIONS, *FLAGS):
            sys.exit(f"apptainer shim: option {rest[0]} is not known here")
        size = 2 if rest[0] in OPTIONS else 1
        options.append(rest[:size])
        rest = rest[size:]
    image, *command = rest
    with Path(os.environ["SHIM_CALLS"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"image": image, "options": options, "command": command}) + "\n")
    os.environ["PATH"] = f"{Path(image).resolve() / 'bin'}:/usr/bin:/bin"
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
