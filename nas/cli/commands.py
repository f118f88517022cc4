"""The commands: what each is for, an example, and where it is implemented."""

from __future__ import annotations

import argparse
from typing import NamedTuple

DEBUG = "--debug"
JSON = "--json"


class Command(NamedTuple):
    """One command of `nas`."""

    summary: str
    """One sentence, for the list of commands."""
    description: str
    """What it does, in a few sentences."""
    example: str
    """A command line that works."""
    handler: str
    """`module:function`, imported when the command runs."""
    takes: tuple[str, ...] = ()
    """Names of the argument groups in `add_arguments`."""
    announces: bool = False
    """Whether it prints its own JSON document, at its beginning, as it ends by Ctrl-C only."""


COMMANDS: dict[str, Command] = {
    "run": Command(
        summary="Do everything: train, measure, search, export and report.",
        description=(
            "Train a supernet, measure the device, search, export and measure the front, and "
            "write the report. What is done already is not done again, so after an interruption "
            "the same command goes on where it stopped."
        ),
        example="nas run digits.yaml training.steps=500 --device cpu-1t",
        handler="nas.cli.stages:run",
        takes=("config",),
    ),
    "train": Command(
        summary="Train the supernet.",
        description=(
            "Train the supernet, or finish a training that was interrupted. The result does not "
            "depend on the device that is measured later."
        ),
        example="nas train digits.yaml",
        handler="nas.cli.stages:train",
        takes=("config",),
    ),
    "measure": Command(
        summary="Measure the latency table of a device.",
        description=(
            "Measure how long each block of the network takes on the device. No trained weights "
            "are needed. Keep the machine idle meanwhile."
        ),
        example="nas measure digits.yaml --device cpu-1t",
        handler="nas.cli.stages:measure",
        takes=("config",),
    ),
    "search": Command(
        summary="Search the trained supernet for its Pareto front.",
        description=(
            "Search for the subnets that are best for their latency, or for whatever "
            "search.objectives names. Qualities that are known already are not evaluated again."
        ),
        example="nas search digits.yaml 'search.bounds=[latency_ms <= 5]'",
        handler="nas.cli.stages:search",
        takes=("config",),
    ),
    "export": Command(
        summary="Export the front, or the best subnet within a bound, as ONNX.",
        description=(
            "Export every subnet of the front, check and measure it. With --best, write one file: "
            "the best subnet within the bound, with a JSON beside it that says how to feed it."
        ),
        example='nas export digits.yaml --best "latency_ms <= 2" --output digits.onnx',
        handler="nas.cli.stages:export",
        takes=("config", "best"),
    ),
    "report": Command(
        summary="Write the report of a run.",
        description=(
            "Write report.html of a run, as far as it has come, also while another command works "
            "on it. It is one file and needs no network."
        ),
        example="nas report runs/digits",
        handler="nas.cli.stages:report",
        takes=("config",),
    ),
    "compare": Command(
        summary="Compare the fronts of several runs or devices.",
        description=(
            "Draw the fronts of several runs, or of several devices of one run, into one page, "
            "with the hypervolume of each and the latency of the same subnet on each device. RUN "
            "is a run directory, which stands for all its devices, or a front.json or "
            "front.DEVICE.json of one. What cannot be compared is left out, with the reason."
        ),
        example="nas compare runs/pi runs/server --output pi-or-server.html",
        handler="nas.cli.compare:compare",
        takes=("runs",),
    ),
    "dashboard": Command(
        summary="Show all runs in the browser, to choose subnets from.",
        description=(
            "Serve a page with all runs below the folders: how far each is, their fronts, and "
            "bounds to choose a subnet by. It reads the files of the runs and changes nothing, "
            "also while commands work on them, and shows what is new by itself. It serves until "
            "Ctrl-C ends it."
        ),
        example="nas dashboard runs --port 8265",
        handler="nas.cli.dashboard:dashboard",
        takes=("folders",),
        announces=True,
    ),
    "devices": Command(
        summary="List the device profiles, or clean a device up.",
        description=(
            "List the device profiles that --device takes, what each of them is, and whether it "
            "can be measured from here. Profiles of "
            "your own are YAML files in ./devices or ~/.config/elastic-nas/devices, with the keys "
            "backend, threads, provider, spinning, options, precisions, workloads, affinity and "
            "prepare; for a device behind SSH also transport: ssh, host, port, user, identity, "
            "known_hosts, python and folder. docs/latency.md explains them. The exit code is 2 "
            "when one of these files cannot be used; the others can."
        ),
        example="nas devices",
        handler="nas.cli.devices:devices",
        takes=("clean",),
    ),
    "table": Command(
        summary="Export or import a device's latency table.",
        description=(
            "Write the latency table that a device of a run used last to a .csv or .parquet file, "
            "or take one from such a file, with all it needs to be used where the device is not "
            "at hand. The columns are in docs/latency.md."
        ),
        example=(
            "nas table export digits.yaml pi5.csv --device raspberry-pi-5\n"
            "  nas table import digits.yaml pi5.csv --device our-pi5"
        ),
        handler="nas.cli.tables:table",
        takes=("table",),
    ),
    "doctor": Command(
        summary="Check whether a device can be measured.",
        description=(
            "Check what a measurement on a device needs, and say what to do about what is missing. "
            "The exit code is 2 when a check has failed."
        ),
        example="nas doctor cpu",
        handler="nas.cli.devices:doctor",
        takes=("device",),
    ),
    "init": Command(
        summary="Write a commented configuration to start from.",
        description=(
            "Write a YAML file with every key explained. An existing file is never overwritten. "
            "With --pretrained, the network of a checkpoint is the largest that may be chosen."
        ),
        example=(
            "nas init images --output photos.yaml\n"
            "  nas init images --pretrained vit-base --output tuned.yaml"
        ),
        handler="nas.cli.init:init",
        takes=("task",),
    ),
}

TEMPLATES: dict[str, str] = {
    "digits": "handwritten digits, 8 x 8, built in",
    "images": "your own folder of images, one folder per class",
    "stdlib-text": "a language model of Python's standard library, built in",
    "text": "a language model of your own text files",
}
"""What `nas init` writes, and what it is for."""


def add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the arguments that a command takes to its parser."""
    if "config" in command.takes:
        parser.add_argument(
            "config", metavar="CONFIG", help="a YAML file, or the directory of an earlier run"
        )
        parser.add_argument(
            "overrides",
            metavar="KEY=VALUE",
            nargs="*",
            default=[],
            help="values that replace those of the file, such as training.steps=100",
        )
        parser.add_argument(
            "--device", metavar="NAME", help="the device profile, instead of the file's"
        )
    if "runs" in command.takes:
        parser.add_argument(
            "runs", metavar="RUN", nargs="+", help="a run directory, or a front.json of one"
        )
        parser.add_argument(
            "--output",
            metavar="FILE",
            default="compare.html",
            help="the page (default: compare.html)",
        )
    if "folders" in command.takes:
        parser.add_argument(
            "folders",
            metavar="FOLDER",
            nargs="*",
            default=["runs"],
            help="where runs lie, or a run directory (default: runs)",
        )
        parser.add_argument(
            "--port", metavar="N", type=int, default=8265, help="0 takes a free one (default: 8265)"
        )
        parser.add_argument(
            "--host",
            metavar="ADDRESS",
            default="127.0.0.1",
            help="the address to listen at (default: 127.0.0.1, which this host alone reaches)",
        )
        parser.add_argument("--open", action="store_true", help="open the page in the browser")
    if "best" in command.takes:
        parser.add_argument(
            "--best",
            metavar="BOUND",
            help='write only the best subnet within bounds, such as "latency_ms <= 2" or '
            '"latency_ms <= 2, size_bytes <= 500000"',
        )
        parser.add_argument(
            "--output", metavar="FILE", help="where --best writes to (default: best.onnx)"
        )
    if "table" in command.takes:
        parser.add_argument(
            "action",
            metavar="export|import",
            choices=("export", "import"),
            help="write a file, or take one in",
        )
        parser.add_argument(
            "config", metavar="CONFIG", help="a YAML file, or the directory of an earlier run"
        )
        parser.add_argument("file", metavar="FILE", help="the .csv or .parquet file")
        parser.add_argument(
            "--device",
            metavar="NAME",
            help="export: whose table (default: CONFIG's); import: the name to "
            "give it (default: the one in FILE)",
        )
    if "clean" in command.takes:
        parser.add_argument(
            "--clean", metavar="NAME", help="remove what measuring has left on a device behind SSH"
        )
    if "device" in command.takes:
        parser.add_argument(
            "device", metavar="DEVICE", nargs="?", default="cpu", help="a profile (default: cpu)"
        )
    if "task" in command.takes:
        parser.add_argument(
            "task",
            metavar="|".join(TEMPLATES),
            choices=tuple(TEMPLATES),
            help="; ".join(f"{name}: {text}" for name, text in TEMPLATES.items()),
        )
        parser.add_argument(
            "--output", metavar="FILE", help="the file (default: TASK.yaml); - prints it instead"
        )
        parser.add_argument(
            "--pretrained",
            metavar="FOLDER",
            help="start from this checkpoint, which Hugging Face's save_pretrained wrote: a ViT "
            "(images), Llama or Mistral (text, stdlib-text)",
        )
    parser.add_argument(
        JSON, action="store_true", help="print one JSON document on stdout; logs go to stderr"
    )
    parser.add_argument(
        DEBUG, action="store_true", help="show the traceback when something unexpected happens"
    )
