"""HTML reports: self-contained, escaped."""
import base64
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from mmdet3d_plugin.visualization import report


def embedded(text):
    [(kind, data)] = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', text)
    return kind, cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_images_are_embedded():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:] = (250, 10, 10)  # red
    kind, shown = embedded(report.figure(image))
    assert kind == 'jpeg' and shown.shape == (20, 30, 3)
    assert np.abs(shown[..., ::-1].astype(int) - image).max() < 8
    png = cv2.imencode('.png', image[..., ::-1])[1].tobytes()
    kind, shown = embedded(report.figure(png))
    assert kind == 'png' and (shown[..., ::-1] == image).all()
    with pytest.raises(ValueError, match='expected PNG or JPEG'):
        report.figure(b'GIF89a')


def test_charts_draw_every_curve_in_its_colour():
    curves = dict(a=[(0, 1.0), (10, 0.5)], b=[(0, 2.0), (10, 1.0)], c=[])
    png = report.line_charts(dict(loss=curves, only_a=dict(a=curves['a'])),
                             dict(a='#ff0000', b='#0000ff', c='#00ff00'))
    shown = embedded(report.figure(png))[1][..., ::-1].reshape(-1, 3)
    counts = [(shown == colour).all(1).sum() for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    assert counts[0] > counts[1] > 100 and counts[2] == 0


def test_texts_are_escaped_and_the_page_is_well_formed():
    evil = '<b>&"'
    text = report.page(evil, evil, [
        report.section(report.paragraphs(evil) + report.bullets([evil]) + report.listing([evil]),
                       evil),
        report.section(report.table([[report.named(evil, 'red'), report.bar(evil, 0.25, 'red')]],
                                    [evil, 'x']))])
    assert '<b>' not in text
    assert text.count('&lt;b&gt;&amp;') == 10
    assert 'width:25.0%' in text
    body = text[text.index('<body>'):text.index('</html>')]
    assert ElementTree.fromstring(body).tag == 'body'
