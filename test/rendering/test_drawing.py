"""Polygons to pixels, against areas worked by hand."""

from __future__ import annotations

from masa_ros.rendering.camera import Camera
from masa_ros.rendering.drawing import Drawing, rasterize, silhouette_area, Sketch
import numpy as np
import pytest

CAMERA = Camera((0, 0, 0), 0, 0, 0, 100, 200, 100)


def square(x0: float, y0: float, x1: float, y1: float) -> Drawing:
    drawing = Drawing()
    drawing.add(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), (200, 100, 50))
    return drawing


def test_a_square_covers_its_pixels() -> None:
    layer = rasterize(square(20, 30, 60, 50), 200, 100)
    assert layer is not None
    assert (layer.x0, layer.y0) == (20, 30)
    assert layer.coverage.shape == (20, 40)
    assert (layer.coverage >= 128).all()
    np.testing.assert_array_equal(layer.colors[10, 20], [200, 100, 50])


def test_coverage_is_the_share_of_the_pixel() -> None:
    layer = rasterize(square(20, 20, 30.5, 30), 200, 100)
    assert layer is not None
    # The border column is half covered; filling with edge pixels may add up to a quarter.
    assert 120 <= int(layer.coverage[5, 10]) <= 200


def test_what_leaves_the_image_is_cut() -> None:
    layer = rasterize(square(-50, 90, 10, 400), 200, 100)
    assert layer is not None
    assert layer.region() == (slice(90, 100), slice(0, 10))


@pytest.mark.parametrize('drawing', [Drawing(), square(300, 10, 400, 20)])
def test_nothing_inside_the_image_is_no_layer(drawing: Drawing) -> None:
    assert rasterize(drawing, 200, 100) is None


def test_huge_coordinates_do_not_wrap_around() -> None:
    layer = rasterize(square(-1e7, -1e7, 1e7, 50), 200, 100)
    assert layer is not None
    assert (layer.coverage[:49] == 255).all()


def test_a_texture_scales_the_colors() -> None:
    dark = np.full((8, 8, 3), 64, np.uint8)
    layer = rasterize(square(20, 30, 60, 50), 200, 100, dark)
    assert layer is not None
    np.testing.assert_array_equal(layer.colors[10, 20], [100, 50, 25])


def test_silhouette_area_counts_what_is_outside_too() -> None:
    assert silhouette_area(square(-500, -100, 100, 100)) == pytest.approx(120000, rel=0.02)
    assert silhouette_area(Drawing()) == 0


def test_a_disc_has_its_projected_radius() -> None:
    sketch = Sketch(CAMERA)
    center = np.array([[0, 0, 10.0]])
    sketch.capsules(center, center, np.array([[1.0, 1.0]]), [(9, 9, 9)])
    # Radius 1 m at 10 m with 100 pixels of focal length: 10 pixels.
    assert sketch.drawing.bounds() == pytest.approx([90, 40, 110, 60])


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    sketch = Sketch(CAMERA)
    behind = np.array([[0, 0, -5.0]])
    sketch.capsules(behind, behind, np.array([[1.0, 1.0]]), [(9, 9, 9)])
    sketch.polygon(np.array([[0, 0, -1.0], [1, 0, -1], [1, 1, -1]]), (9, 9, 9))
    assert sketch.drawing.bounds() is None


def test_a_polygon_that_reaches_behind_the_camera_is_cut() -> None:
    sketch = Sketch(CAMERA)
    sketch.polygon(np.array([[1, 0, -5.0], [1, 0, 5], [1, 1, 5], [1, 1, -5]]), (9, 9, 9))
    bounds = sketch.drawing.bounds()
    assert bounds is not None
    assert np.isfinite(bounds).all()
    assert bounds[0] == pytest.approx(120)
