"""Maps with a sign: their scale, what several are together, which pixels are kept; and maps that are widened."""

import numpy as np

from explainer.maps.heatmaps import Letterbox, for_and_against, keep_strongest, signed_map_of, widened

WHOLE = Letterbox((2, 2), (2, 2), (2, 2), 0, 0)


def test_the_scale_is_the_largest_magnitude_within_the_image_not_the_padding():
    cam = np.float32([[9, -9], [1, -2]])
    lower_half = Letterbox((1, 2), (2, 2), (1, 2), 1, 0)
    np.testing.assert_allclose(signed_map_of([cam], lower_half), [[0.5, -1]])


def test_the_maps_of_layers_are_scaled_before_they_are_averaged():
    cams = [np.float32([[8, 0], [-4, 0]]), np.float32([[0, 0], [-0.1, 0]])]
    np.testing.assert_allclose(signed_map_of(cams, WHOLE), np.float32([[0.5, 0], [-0.75, 0]]) / 0.75)


def test_a_map_of_nothing_has_no_sign_and_no_scale():
    assert not signed_map_of([np.zeros((2, 2), np.float32)], WHOLE).any()
    assert for_and_against([], (3, 4)).shape == (3, 4)


def test_maps_together_say_the_most_for_plus_the_most_against():
    maps = [np.float32([[1, 0.5, -0.2]]), np.float32([[0.5, -0.5, -0.4]])]
    np.testing.assert_allclose(for_and_against(maps, (1, 3)), [[1, 0, -0.4]])


def test_the_strongest_pixels_are_kept_whatever_their_sign():
    signed = np.float32([[1, -0.9], [0.1, -0.2]])
    np.testing.assert_allclose(keep_strongest(signed, 50), [[1, -0.9], [0, 0]])
    np.testing.assert_allclose(keep_strongest(signed, 100), signed)


def test_a_widened_cell_reaches_further_the_less_there_is():
    dot = np.zeros((21, 21), dtype=np.float32)
    dot[10, 10] = 5
    wide = widened(dot)
    assert wide.max() == wide[10, 10] == 1
    np.testing.assert_allclose(wide, wide.T, atol=1e-6)
    row = wide[10, 10:16]
    assert (np.diff(row) < 0).all()
    assert row[3] > 1e-4
    assert not widened(-dot).any()
