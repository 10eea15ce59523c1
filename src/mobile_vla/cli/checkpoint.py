"""``mobile-vla checkpoint``: find, verify, salvage, convert, import and pull checkpoints of any kind."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mobile_vla.cli.shared import Commands, add_json, count, positive, print_json

WHOLE, DAMAGED, UNPROVEN = 0, 1, 3
"""Exit codes of a verdict; 2 is an error of use. UNPROVEN: nothing is wrong, but the format has no checksums."""


def add_to(commands: Commands) -> None:
    """Describe the command and its verbs."""
    parser = commands.add_parser(
        "checkpoint", help="find, verify, salvage, convert, import or pull checkpoints of any kind"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_find(verbs)
    _add_verify(verbs)
    _add_salvage(verbs)
    _add_convert(verbs)
    _add_import(verbs)
    _add_pull(verbs)


def _add_find(verbs: Commands) -> None:
    find = verbs.add_parser("find", help="list all checkpoints below folders, and pick the best whole one")
    find.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="where to look (default: runs)")
    find.add_argument("--for", dest="policy", default="compact", metavar="POLICY", help="kind of policy to pick for")
    find.add_argument("--quick", action="store_true", help="look at names, sizes and headers, not at every byte")
    add_json(find)
    find.set_defaults(run=run_find)


def _add_verify(verbs: Commands) -> None:
    verify = verbs.add_parser(
        "verify",
        help="read every byte and name each damaged tensor",
        description="Exit code 0: every byte is proven. 1: damaged. 2: wrong use. 3: nothing is wrong, but no checksum "
        "was stored that could prove it.",
    )
    verify.add_argument("path", type=Path, help="file or folder")
    _add_opaque(verify)
    add_json(verify)
    verify.set_defaults(run=run_verify)


def _add_salvage(verbs: Commands) -> None:
    salvage = verbs.add_parser(
        "salvage",
        help="take what still checks out of a damaged checkpoint; the original is only read",
        description="Exit code 0: everything was recovered. 1: a part of it. 2: nothing, or wrong use.",
    )
    salvage.add_argument("path", type=Path, help="damaged file or folder")
    salvage.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for what is recovered")
    salvage.add_argument(
        "--template",
        type=Path,
        metavar="FILE",
        help="config.json, manifest.json or a whole checkpoint of the same model: names for tensors that lost theirs",
    )
    salvage.add_argument("--backup", type=Path, metavar="DIR", help="first copy the damaged original to this folder")
    _add_opaque(salvage)
    add_json(salvage)
    salvage.set_defaults(run=run_salvage)


def _add_convert(verbs: Commands) -> None:
    convert = verbs.add_parser(
        "convert", help="write the weights of a foreign file as safetensors; nothing is executed"
    )
    convert.add_argument("path", type=Path, help="file or folder")
    convert.add_argument("--to", choices=["safetensors"], default="safetensors", help="format to write")
    convert.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: beside the source)")
    convert.add_argument("--key", metavar="NAME", help="the part that holds the weights, where it cannot be told")
    _add_opaque(convert)
    add_json(convert)
    convert.set_defaults(run=run_convert)


def _add_import(verbs: Commands) -> None:
    parser = verbs.add_parser(
        "import",
        help="make a policy of a fine-tuned Kosmos-2 with an LSTM head, from elsewhere",
        description="What the numbers of its actions mean stands in no such file: say it. The prompt line before the "
        "report tells in what the policy still differs from the original.",
    )
    parser.add_argument("path", type=Path, help="file or folder of any format; no code in it is run")
    parser.add_argument("--layout", required=True, metavar="forerunner|robovlms", help="whose names its tensors have")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the policy")
    parser.add_argument(
        "--axes",
        required=True,
        type=_words,
        metavar="NAMES",
        help="axes of its actions in its order: linear_x,linear_y; -linear_y where its positive is right (--axes=-...)",
    )
    parser.add_argument(
        "--limits",
        required=True,
        type=_numbers,
        metavar="NUMBERS",
        help="for each axis, the velocity that it calls 1.0, in m/s or rad/s: 1.15,1.15",
    )
    parser.add_argument("--rate-hz", required=True, type=positive, metavar="HZ", help="rate of the rows of a chunk")
    parser.add_argument("--frame-rate-hz", required=True, type=positive, metavar="HZ", help="rate of its camera frames")
    parser.add_argument("--horizon", required=True, type=count, metavar="N", help="rows of a chunk")
    parser.add_argument(
        "--kosmos",
        default="microsoft/kosmos-2-patch14-224",
        metavar="NAME",
        help="hub name or folder of the Kosmos-2 that it was made with (default: %(default)s)",
    )
    parser.add_argument("--window", type=count, default=8, metavar="N", help="frames its LSTM looks back (default: 8)")
    parser.add_argument("--bf16", action="store_true", help="store the weights as bfloat16: half the size")
    _add_opaque(parser)
    add_json(parser)
    parser.set_defaults(run=run_import)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str) -> list[float]:
    return [positive(word) for word in text.split(",")]


def _add_pull(verbs: Commands) -> None:
    pull = verbs.add_parser("pull", help="copy a checkpoint so that a cut line or a kill costs nothing but time")
    pull.add_argument("source", help="path, or HOST:PATH as ssh takes it")
    pull.add_argument("target", type=Path, help="where the copy shall be")
    add_json(pull)
    pull.set_defaults(run=run_pull)


def _add_opaque(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--opaque",
        action="append",
        default=[],
        metavar="CLASS",
        help="a class (module.Name or module.*) that a foreign pickle may name; it stays unknown and is never loaded",
    )


def run_find(options: argparse.Namespace) -> int:
    """0 when a whole one was found for the policy, 1 when not."""
    from mobile_vla.checkpoint.find import best, find
    from mobile_vla.cli.checkpoint_words import found_values, print_found

    folders = options.folders or [Path("runs")]
    found = find(folders, quick=options.quick)
    pick = best(found, options.policy)
    if options.json:
        print_json({"found": [found_values(each) for each in found], "best": str(pick.path) if pick else None})
    else:
        print_found(found)
        places = ", ".join(str(folder) for folder in folders)
        if pick is None:
            print(f"no whole checkpoint for the policy {options.policy} below {places}")
        else:
            print(f"best whole one for {options.policy}: {pick.path}")
    return WHOLE if pick is not None else DAMAGED


def run_verify(options: argparse.Namespace) -> int:
    """0 whole, 1 damaged, 3 unproven."""
    from mobile_vla.checkpoint.verify import State, verify
    from mobile_vla.cli.checkpoint_words import print_verdict, verdict_values

    verdict = verify(options.path, opaque=options.opaque)
    if options.json:
        print_json(verdict_values(verdict))
    else:
        print_verdict(verdict)
    return {State.WHOLE: WHOLE, State.DAMAGED: DAMAGED}.get(verdict.state, UNPROVEN)


def run_salvage(options: argparse.Namespace) -> int:
    """0 when every tensor was recovered, 1 when a part was."""
    from mobile_vla.checkpoint.backup import back_up, backup_offer
    from mobile_vla.checkpoint.salvage import salvage
    from mobile_vla.cli.checkpoint_words import print_rescue, rescue_values

    template = _template(options.template) if options.template else None
    if options.backup is not None:
        copy = back_up(options.path, options.backup)
        print(f"backup: {copy}", file=sys.stderr)
    else:
        offer = backup_offer(options.path)
        print(offer, file=sys.stderr)
        if sys.stdin.isatty() and input("copy it there first? [y/N] ").strip().lower() in ("y", "yes"):
            print(f"backup: {back_up(options.path, options.path.parent)}", file=sys.stderr)
    rescue = salvage(options.path, options.out, template=template, opaque=options.opaque)
    if options.json:
        print_json(rescue_values(rescue))
    else:
        print_rescue(rescue)
    complete = not (rescue.missing or rescue.lost or rescue.doubtful or rescue.unnamed)
    return WHOLE if complete else DAMAGED


def run_convert(options: argparse.Namespace) -> int:
    """0 when the file was written."""
    from dataclasses import asdict

    from mobile_vla.checkpoint.convert import convert
    from mobile_vla.cli.checkpoint_words import print_converted

    target = options.out or options.path.with_name(f"{options.path.name.removesuffix(options.path.suffix)}.safetensors")
    done = convert(options.path, target, key=options.key, opaque=options.opaque)
    if options.json:
        print_json(asdict(done))
    else:
        print_converted(done)
    return WHOLE


def run_import(options: argparse.Namespace) -> int:
    """0 when the policy was written."""
    from mobile_vla.cli.checkpoint_words import print_imported
    from mobile_vla.core import CheckpointError
    from mobile_vla.policy.forerunner import contract_of, import_checkpoint
    from mobile_vla.policy.weights import origin_of_import, save_network

    if options.out.exists() and any(options.out.iterdir()):
        raise CheckpointError(f"{options.out} is not empty: name a new folder with --out")
    contract = contract_of(options.axes, options.limits, options.rate_hz, options.frame_rate_hz, options.horizon)
    network, imported = import_checkpoint(
        options.path, options.layout, contract, options.axes, options.kosmos, options.window, options.opaque
    )
    if options.bf16:
        network.bfloat16()
    values = imported.to_dict()
    save_network(options.out, network, origin_of_import(options.path, values, options.opaque))
    if options.json:
        print_json({"out": str(options.out), "contract": contract.to_dict(), **values})
    else:
        print_imported(imported, options.out)
    return WHOLE


def run_pull(options: argparse.Namespace) -> int:
    """0 when the copy is whole, 1 when it equals a source that is damaged, 3 when nothing proves it."""
    from mobile_vla.checkpoint.pull import pull
    from mobile_vla.checkpoint.verify import State
    from mobile_vla.cli.checkpoint_words import print_pulled, pulled_values, shown_progress

    with shown_progress("pull", options.json) as progress:
        pulled = pull(options.source, options.target, progress=progress)
    if options.json:
        print_json(pulled_values(pulled))
    else:
        print_pulled(pulled)
    return {State.WHOLE: WHOLE, State.DAMAGED: DAMAGED}.get(pulled.verdict.state, UNPROVEN)


def _template(path: Path) -> Any:
    """From a config of ours through the policy it describes, from everything else by the room of checkpoints."""
    from mobile_vla.checkpoint.template import Template, read_template

    if path.name == "config.json":
        from mobile_vla.policy.weights import template

        return Template.of_shapes(template(path))
    return read_template(path)
