# SPDX-License-Identifier: MIT
"""What reports in HTML have in common: one file that needs nothing else, figures as SVG."""

from __future__ import annotations

import html
import io

COLOR = "#2a6f97"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f23}h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.sub{color:#586069;margin-top:0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.2rem .9rem .2rem 0;text-align:right;border-bottom:1px solid #e5e8eb}
th{font-weight:600;color:#586069}th:first-child,td:first-child{text-align:left}.facts td{text-align:left}.facts td:first-child{color:#586069;white-space:nowrap}
.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{font-weight:600}svg{width:27rem;max-width:100%;height:auto}
.findings{background:#fff8e6;border-left:4px solid #e0a100;padding:.6rem 1rem .6rem 2rem;margin:1rem 0}.good{background:#eaf6ee;border-left-color:#2f9e5b;padding-left:1rem}details{margin-top:.5rem}
"""


def page(title: str, body: str, style: str = "") -> str:
    return (f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title><style>{_STYLE}{style}</style>"
            f"<h1>{html.escape(title)}</h1>{body}</html>")


def table(rows, header) -> str:
    head = "".join(f"<th>{html.escape(str(x))}</th>" for x in header)
    return f"<table><tr>{head}</tr>" + "".join("<tr>" + "".join(f"<td>{html.escape(str(x))}</td>" for x in row) + "</tr>" for row in rows) + "</table>"


def listing(title: str, lines) -> str:
    return f"<details><summary>{html.escape(title)}</summary><ul>" + "".join(f"<li>{html.escape(x)}</li>" for x in lines) + "</ul></details>" if lines else ""


def figure(draw, size=(4.2, 2.5)) -> str:
    """An SVG of what draw(axis) draws, the same bytes for the same numbers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "macekit"}):
        canvas, axis = pyplot.subplots(figsize=size, layout="constrained")
        draw(axis)
        out = io.StringIO()
        canvas.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        pyplot.close(canvas)
    return out.getvalue()[out.getvalue().index("<svg"):]


def captioned(title: str, svg: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
