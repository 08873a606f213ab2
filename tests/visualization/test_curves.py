"""Curves of logs: smoothing and the plot."""
from mmdet3d_plugin.visualization.curves import plot_curves, smoothed


def test_smoothing_and_logarithmic_values(tmp_path, monkeypatch):
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda figure, *_, **__: drawn.append(
        {axis.get_title(): (axis.get_yscale(), [line.get_ydata()[-1] for line in axis.lines])
         for axis in figure.axes if axis.lines}))
    drawn, curves = [], dict(distance=[(1, 8.0), (2, 4.0), (3, 1.0)], iou=[(1, 0.0), (3, 2.0)])
    assert smoothed(curves['distance'], 2) == [(1, 8.0), (2, 6.0), (3, 2.5)]
    plot_curves(dict(one=curves, other=curves), tmp_path / 'a.png', smooth=2, log=True)
    assert drawn == [dict(distance=('log', [1.0, 2.5] * 2), iou=('linear', [2.0, 1.0] * 2))]
