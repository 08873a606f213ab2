"""Reports as one HTML file that needs nothing beside it."""
import base64
import html
import io
from pathlib import Path
from string import Template
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

Points = Sequence[Tuple[float, float]]

_PAGE = Template('''<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1f2933; --soft: #5f6b7a; --line: #e3e8ee; --mark: #0f766e; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f9; color: var(--ink);
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 19px; margin: 0 0 12px; }
.soft, figcaption { color: var(--soft); font-size: 14px; margin: 8px 0 0; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px;
          padding: 22px 26px; margin-top: 22px; }
.lead { font-size: 18px; border-left: 4px solid var(--mark); }
.lead p { margin: 0; } .lead p + p { margin-top: 8px; }
.warning { border-left: 4px solid #b45309; background: #fffbeb; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 10px; border-bottom: 1px solid var(--line); text-align: right;
         white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 13px; vertical-align: bottom; }
th:first-child, td:first-child, .facts td { text-align: left; }
.facts td { white-space: normal; } .facts td:first-child { color: var(--soft); width: 22%; }
tr:last-child td { border-bottom: 0; }
.bar { position: relative; display: block; height: 5px; margin-top: 3px; border-radius: 3px;
       background: var(--line); min-width: 84px; }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
figure { margin: 0 0 26px; } figure:last-child { margin-bottom: 0; }
img { display: block; width: 100%; height: auto; }
pre { background: #f5f7f9; border: 1px solid var(--line); border-radius: 8px; margin: 0;
      padding: 14px 16px; font-size: 13px; line-height: 1.5; }
pre code { display: block; white-space: pre-wrap; overflow-wrap: anywhere;
           padding-left: 2em; text-indent: -2em; } pre code + code { margin-top: 8px; }
li + li { margin-top: 6px; } ul { margin: 0; padding-left: 22px; }
</style>
</head>
<body><main>
<h1>$title</h1>
<p class="soft">$subtitle</p>
$body
</main></body>
</html>
''')


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """The whole file.

    Args:
        title, subtitle: plain text.
        sections: HTML of :func:`section`.
    """
    return _PAGE.substitute(title=html.escape(title), subtitle=html.escape(subtitle),
                            body='\n'.join(sections))


def section(body: str, title: str = '', kind: str = '') -> str:
    """A card with HTML inside; ``kind`` is '', 'lead' or 'warning'."""
    head = f'<h2>{html.escape(title)}</h2>\n' if title else ''
    return f'<section class="{kind}">\n{head}{body}\n</section>'


def paragraphs(*texts: str, kind: str = '') -> str:
    """Plain texts as paragraphs."""
    return '\n'.join(f'<p class="{kind}">{html.escape(text)}</p>' for text in texts)


def bullets(texts: Iterable[str]) -> str:
    """Plain texts as a list."""
    return '<ul>' + '\n'.join(f'<li>{html.escape(text)}</li>' for text in texts) + '</ul>'


def listing(lines: Iterable[str]) -> str:
    """Lines of code or commands."""
    return '<pre>' + ''.join(f'<code>{html.escape(line)}</code>' for line in lines) + '</pre>'


def table(rows: Iterable[Sequence[str]], header: Optional[Sequence[str]] = None) -> str:
    """A table of HTML cells; without a header, a list of facts."""
    head = ''
    if header:
        head = '<tr>' + ''.join(f'<th>{html.escape(name)}</th>' for name in header) + '</tr>'
    body = '\n'.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>' for row in rows)
    kind = '' if header else 'facts'
    return f'<div class="table"><table class="{kind}">{head}{body}</table></div>'


def named(text: str, colour: str) -> str:
    """A name with the dot of its colour in the plots."""
    return f'<span class="dot" style="background:{colour}"></span>{html.escape(text)}'


def bar(text: str, share: float, colour: str) -> str:
    """A number above a bar of ``share`` (0 to 1) of the cell."""
    width = 100 * min(max(share, 0), 1)
    return (f'{html.escape(text)}<span class="bar"><i style="width:{width:.1f}%;'
            f'background:{colour}"></i></span>')


def figure(image: Union[np.ndarray, bytes, str, Path], caption: str = '', alt: str = '') -> str:
    """An embedded image.

    Args:
        image: (H, W, 3) uint8 RGB, stored as JPEG; or a PNG or JPEG as bytes or file.
        caption, alt: plain text.

    Raises:
        ValueError: the bytes are neither PNG nor JPEG.
    """
    note = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
    return f'<figure><img src="{_data_uri(image)}" alt="{html.escape(alt or caption)}">{note}' \
        '</figure>'


def _data_uri(image) -> str:
    if isinstance(image, np.ndarray):
        _, data = cv2.imencode('.jpg', np.ascontiguousarray(image[..., ::-1]),
                               [cv2.IMWRITE_JPEG_QUALITY, 90])
        data = data.tobytes()
    else:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
    kinds = {b'\x89PNG': 'png', b'\xff\xd8\xff': 'jpeg'}
    for magic, kind in kinds.items():
        if data.startswith(magic):
            return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    raise ValueError(f'image: expected PNG or JPEG, got bytes that begin with {data[:8]!r}')


def line_charts(charts: Dict[str, Dict[str, Points]], colours: Dict[str, str],
                columns: int = 2, xlabel: str = 'iteration') -> bytes:
    """Curves side by side as a PNG.

    Args:
        charts: title of the chart -> name of the curve -> (x, y) points.
        colours: of the curves, by name; the legend has them once, in this order.
        columns: charts in a row.
        xlabel: of every chart.
    """
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(charts) // columns)
    canvas = Figure(figsize=(5.4 * columns, 3.1 * rows + 0.35), dpi=150)
    axes = canvas.subplots(rows, columns, squeeze=False)
    lines: Dict[str, object] = {}
    for axis, (title, curves) in zip(axes.flat, charts.items()):
        for name in colours:
            if curves.get(name):
                [lines[name]] = axis.plot(*zip(*curves[name]), color=colours[name], linewidth=1.8,
                                          marker='o' if len(curves[name]) < 12 else None,
                                          markersize=4, label=name)
        axis.set_title(title, loc='left', fontsize=11, fontweight='bold')
        axis.set_xlabel(xlabel, fontsize=9)
        axis.tick_params(labelsize=9, length=0)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if all(y >= 0 for points in curves.values() for _, y in points):
            axis.set_ylim(bottom=0)
        axis.grid(color='#e3e8ee')
        axis.set_axisbelow(True)
        for side in axis.spines.values():
            side.set_visible(False)
    for axis in list(axes.flat)[len(charts):]:
        axis.axis('off')
    canvas.tight_layout(rect=(0, 0, 1, 1 - 0.35 / canvas.get_figheight()))
    shown: List[str] = [name for name in colours if name in lines]
    canvas.legend([lines[name] for name in shown], shown, loc='upper center', ncol=len(shown) or 1,
                  frameon=False, fontsize=10)
    file = io.BytesIO()
    canvas.savefig(file, format='png')
    return file.getvalue()
