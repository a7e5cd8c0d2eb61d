"""What is measured around a shift, against plain loops."""

import numpy as np
import pytest

from lit_moe.study.shift import BANDS, around_shift, layers_of


def naive(before, after, window, tolerance, smooth):
    level = np.mean(before[-window:])
    spike = (np.max(after[:window]) - np.max(before[-window:])) / level
    means = np.convolve(after, np.ones(smooth) / smooth, "valid")
    peak = int(np.argmax(means[:window]))
    returned = len(after)
    for step in range(len(means) - 1, peak - 1, -1):
        if means[step] <= (1 + tolerance) * level:
            returned = step
    if means[peak] <= (1 + tolerance) * level:
        returned = 0
    return {"level": level, "spike": spike, "return_steps": returned, "steady": np.mean(after[-window:])}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("window", [1, 4, 10])
def test_spike_and_return_are_those_of_a_plain_loop(seed, window):
    random = np.random.default_rng(seed)
    before = 0.2 + 0.02 * random.standard_normal(30)
    after = 0.2 + 0.3 * random.random() * np.exp(-np.arange(25) / 5) + 0.02 * random.standard_normal(25)
    found = around_shift(before.tolist(), after.tolist(), window, tolerance=0.1, smooth=3)
    assert found == pytest.approx(naive(before, after, window, 0.1, 3))


def test_noise_alone_makes_no_spike():
    random = np.random.default_rng(0)
    series = 1 + 0.1 * random.standard_normal((2000, 60))
    spikes = [around_shift(row[:20].tolist(), row[20:].tolist(), 20)["spike"] for row in series]
    assert abs(np.mean(spikes)) < 4 * np.std(spikes) / np.sqrt(len(spikes))


def test_what_rises_and_stays_never_returns():
    found = around_shift([1.0] * 5, [2.0] * 8, 5)
    assert (found["spike"], found["return_steps"], found["steady"]) == (1.0, 8.0, 2.0)


@pytest.mark.parametrize("n_layers", [1, 3, 4, 6, 12, 24, 36])
@pytest.mark.parametrize("bands", [BANDS[:3], BANDS[3:5], BANDS[5:]])
def test_bands_divide_the_layers(n_layers, bands):
    found = [layer for band in bands for layer in layers_of(band, n_layers)]
    assert found == list(range(n_layers))


def test_bands_of_24_layers_are_named_by_them():
    for band in BANDS:
        first, last = map(int, band.split("-"))
        assert layers_of(band, 24) == list(range(first, last + 1))
