# SPDX-License-Identifier: MIT
"""MkDocs hook. In the repository, links lead to files wherever they are; here their targets become pages of the site, under the same path:

- README files and the like as they are, all other files outside docs/ as a listing;
- `<!-- figure: NAME -->` becomes the picture that draw() of docs/figures/NAME.py makes, once for each colour scheme;
- `<!-- benchmarks -->` becomes the tables of benchmarks/results/*.json.
"""

import functools
import importlib.util
import io
import json
import logging
import posixpath
import re
from pathlib import Path

import matplotlib
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
START = ["README.md", "CHANGELOG.md"]  # what docs/ need not link to
CODE = re.compile(r"(^(```+).*?^\2[ \t]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
FIGURE = re.compile(r"<!-- figure: ([a-z0-9-]+) -->")
LANGUAGES = {".py": "python", ".cpp": "cpp", ".hpp": "cpp", ".h": "cpp", ".sh": "sh", ".yaml": "yaml", ".yml": "yaml", ".json": "json", "": "text"}
SCHEMES = {"light": ("#3b3f46", "#d0d3d8"), "dark": ("#d9dce3", "#4d5260")}  # text, lines
COLOURS = ["#4c86c6", "#f28e2b", "#3fa796", "#b07aa1", "#e15759", "#9c8b6e"]
log = logging.getLogger("mkdocs.hooks")
_sources = {}  # page of the site: path in the repository


def prose(markdown, change):
    """markdown with change(piece) in place of every piece that is not code."""
    pieces, end = [], 0
    for code in CODE.finditer(markdown):
        pieces += [change(markdown[end:code.start()]), code.group()]
        end = code.end()
    return "".join(pieces) + change(markdown[end:])


def targets(path, markdown):
    """(path in the repository, anchor) of the relative links of a page; a folder stands for its README.md."""
    found = []

    def collect(piece):
        for match in TARGET.finditer(piece):
            if not re.match(r"[a-z]+:", match[2]):
                found.append((resolve(path, match[2]), (match[3] or "")[1:]))
        return piece

    prose(markdown, collect)
    return found


def resolve(path, target):
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return posixpath.join(target, "README.md") if (ROOT / target).is_dir() else target


def page_of(path):
    """Where a file of the repository is in the site."""
    path = path.removeprefix("docs/")
    return path if path.endswith(".md") else path + ".md"


def content_of(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"---\nsearch: {{exclude: true}}\n---\n# {posixpath.basename(path)}\n\n`{path}`\n\n`````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n`````\n"


def on_files(files, config):
    _sources.clear()
    queue = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + START
    for path in queue:
        if not (path.startswith("docs/") and path.endswith(".md")):
            files.append(File.generated(config, page_of(path), content=content_of(path)))
        _sources[page_of(path)] = path
        if path.endswith(".md"):
            markdown = (ROOT / path).read_text(encoding="utf-8")
            for target, _ in targets(path, markdown):
                if not (ROOT / target).is_file():
                    log.warning(f"{path}: the link to {target} leads nowhere")
                elif target not in queue:
                    queue.append(target)
            for name in FIGURE.findall(markdown):
                picture = draw(name)
                for scheme, colours in SCHEMES.items():
                    content = functools.reduce(lambda text, pair: text.replace(*pair), zip(SCHEMES["light"], colours), picture)
                    files.append(File.generated(config, f"figures/{name}-{scheme}.svg", content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    path = _sources[page.file.src_uri]
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(match):
        if re.match(r"[a-z]+:", match[2]):
            return match[0]
        return match[1] + posixpath.relpath(page_of(resolve(path, match[2])), here or ".") + (match[3] or "")

    def picture(match):
        place = posixpath.relpath(f"figures/{match[1]}", here or ".")
        return " ".join(f"![{match[1]}]({place}-{scheme}.svg#only-{scheme})" for scheme in SCHEMES)

    markdown = prose(markdown, lambda piece: FIGURE.sub(picture, TARGET.sub(rewrite, piece)))
    return markdown.replace("<!-- benchmarks -->", benchmarks()) if "<!-- benchmarks -->" in markdown else markdown


def draw(name):
    """The SVG of docs/figures/NAME.py, in the colours of the light scheme."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    text, lines = SCHEMES["light"]
    style = {"font.size": 10, "font.family": "DejaVu Sans", "text.color": text, "axes.labelcolor": text, "axes.edgecolor": lines, "xtick.color": text, "ytick.color": text,
             "axes.titlesize": 10, "grid.color": lines, "grid.linewidth": 0.5, "axes.grid": False, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
             "axes.prop_cycle": plt.cycler(color=COLOURS), "figure.constrained_layout.use": True, "savefig.transparent": True, "svg.hashsalt": name, "axes.facecolor": "none"}
    with plt.rc_context(style):
        spec = importlib.util.spec_from_file_location(f"figure_{name.replace('-', '_')}", ROOT / "docs" / "figures" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        figure = module.draw()
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return out.getvalue()


def results():
    """{name: content} of benchmarks/results/*.json."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))}


def benchmarks():
    """Markdown tables of all results; benchmarks/results/README.md describes the files."""
    parts = []
    for result in results().values():
        heads = [f"{name}, {unit}" if unit else name for name, unit in result["columns"]]
        rows = [["" if cell is None else f"{cell:,}".replace(",", " ") if isinstance(cell, int) else str(cell) for cell in row] for row in result["rows"]]
        parts += [f"## {result['title']}", result["conditions"], f"{result['machine']}, {result['date']}. `{result['command']}`",
                  "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows])]
    return "\n\n".join(parts)
