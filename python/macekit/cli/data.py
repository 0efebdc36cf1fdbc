# SPDX-License-Identifier: MIT
from __future__ import annotations

import sys
import tempfile

from . import BROKEN_FILE, InputError, Parser
from .prepare import Progress, add_reading_options, groups_and_options, show

_ABOUT = """Report on data before training: labels and what lacks them, ranges, duplicates, isolated atoms, E0s, elements, neighbours.

  macekit data check train.extxyz --r-max 5
  macekit data check data --html report.html      a folder of macekit prepare; its checksums are verified too

Exit code: 0 the data can be read (findings are sentences in the report), 2 bad frames, 3 damaged files. Files are read as `macekit
prepare` reads them, by way of a temporary folder ($TMPDIR).
"""


def run(argv) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_ABOUT)
        return 0 if argv else 2
    if argv[0] != "check":
        raise InputError(f"unknown word {argv[0]}; expected macekit data check FILES")
    parser = Parser(prog="macekit data check", description=_ABOUT)
    add_reading_options(parser)
    parser.add_argument("--r-max", "--r_max", type=float, default=5.0, metavar="A", help="cut-off for which neighbours are counted (default 5); a prepared folder has its own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", metavar="OUT.html", help="write the report with plots as one file")
    args = parser.parse_args(argv[1:])

    from macekit.data import prepare, report, shards

    if len(args.files) == 1 and not args.head and shards.is_folder(args.files[0]):
        dataset = shards.open_shards(args.files[0])
        damage = list(dataset.damage())
        for sentence in damage:
            print(f"macekit data: {sentence}", file=sys.stderr)
        if damage:
            return BROKEN_FILE
        show(report.report(args.files[0], args.jobs), args)
        return 0
    groups, options = groups_and_options(args)
    options.skip_bad_frames = options.unlabelled = True
    with tempfile.TemporaryDirectory(prefix="macekit-") as folder:
        with Progress("reading") as progress:
            header = prepare.prepare(groups, folder, options, args.jobs, progress=progress)
        result = report.report(folder, args.jobs)
    result["folder"] = ", ".join(f["path"] for f in header["files"][:3]) + (", .." if len(header["files"]) > 3 else "")
    show(result, args)
    for skipped in header["skipped"][:100]:
        print(f"macekit data: {skipped['reason']}", file=sys.stderr)
    return 2 if header["skipped"] else 0
