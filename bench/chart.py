"""A bar chart of slowdowns, as SVG."""

import math
import shutil
import subprocess

from xml.sax.saxutils import escape

COLOURS = ["#1f6fb2", "#e08a1e"]
GRID = "#d8d8d8"
FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"'
LEFT, RIGHT, TOP, BAR, GAP, PLOT = 190, 70, 84, 10, 9, 560
LEAST = 0.5
TICKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


def text(x, y, words, size=12, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {FONT} {more}>{escape(words)}</text>'


def svg(title, subtitle, series, rows):
    """series: names. rows: (label, values in the order of series, True for a mean), or None for a space.
    A value is a factor, or None; the axis is logarithmic, and bars begin at 1."""
    largest = max([v for r in rows if r for v in r[1] if v] + [2])

    def x(value):
        low, high = math.log(LEAST), math.log(largest * 1.15)
        return LEFT + PLOT * (math.log(max(value, LEAST)) - low) / (high - low)

    height_of = [len(series) * BAR + GAP if r else GAP for r in rows]
    bottom = TOP + sum(height_of)
    width, height = LEFT + PLOT + RIGHT, bottom + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
           f'<rect width="{width}" height="{height}" fill="white"/>', text(16, 26, title, 16, more='font-weight="bold"'),
           text(16, 46, subtitle, 12, more='fill="#555"')]
    for n, name in enumerate(series):
        at = LEFT + 150 * n
        out += [f'<rect x="{at}" y="58" width="12" height="12" fill="{COLOURS[n]}"/>', text(at + 18, 68, name)]
    for tick in [t for t in TICKS if t <= largest * 1.1]:
        stroke = "#555" if tick == 1 else GRID
        out += [f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{bottom}" stroke="{stroke}"/>',
                text(x(tick), bottom + 18, f"{tick}", 11, "middle", 'fill="#555"')]
    y = TOP
    for row, high in zip(rows, height_of):
        if row:
            label, values, mean = row
            weight = 'font-weight="bold"' if mean else ""
            out.append(text(LEFT - 12, y + len(series) * BAR / 2 + 7, label, 12, "end", weight))
            for n, value in enumerate(values):
                if not value:
                    continue
                begin, end = sorted((x(1), x(value)))
                top = y + GAP / 2 + n * BAR
                out += [f'<rect x="{begin:.1f}" y="{top:.1f}" width="{max(end - begin, 1):.1f}" height="{BAR - 1}" '
                        f'fill="{COLOURS[n]}"{"" if mean else " fill-opacity=" + chr(34) + "0.75" + chr(34)}/>',
                        text(end + 5, top + BAR - 1.5, f"{value:.2f}" if value < 10 else f"{value:.0f}", 10, more=weight)]
        y += high
    return "\n".join(out + ["</svg>"]) + "\n"


def write(path, content):
    """The SVG, and beside it the same as PNG where a converter is at hand."""
    with open(path, "w") as f:
        f.write(content)
    png = path.removesuffix(".svg") + ".png"
    for command in (["rsvg-convert", "-o", png, path], ["inkscape", "-o", png, path], ["convert", path, png]):
        if shutil.which(command[0]):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return
