# SPDX-License-Identifier: MIT OR Apache-2.0
"""Frame number and time painted into the picture as black and white blocks that survive lossy compression.

The top of the picture is cut into 20 columns of square cells; 60 cells in three rows carry, most significant bit
first: frame number (20 bit), milliseconds of CLOCK_MONOTONIC (32 bit), checksum (8 bit). Cells scale with the
width, so a scaled picture still reads.
"""

import time

import numpy as np

COLUMNS, ROWS = 20, 3
NUMBER_BITS, TIME_BITS, CHECK_BITS = 20, 32, 8


def now_ms():
    return int(time.monotonic() * 1000) & 0xFFFFFFFF


def _check(number, ms):
    # Never 0 for number = time = 0, so a black picture does not read as frame 0.
    return (0xA5 ^ number ^ number >> 8 ^ number >> 16 ^ ms ^ ms >> 8 ^ ms >> 16 ^ ms >> 24) & 0xFF


def paint(luma, number, ms=None):
    """Paints into a writable 2-D luma array."""
    ms = now_ms() if ms is None else ms
    number &= (1 << NUMBER_BITS) - 1
    word = number << (TIME_BITS + CHECK_BITS) | ms << CHECK_BITS | _check(number, ms)
    cell = luma.shape[1] // COLUMNS
    for i in range(COLUMNS * ROWS):
        row, column = divmod(i, COLUMNS)
        bit = word >> (COLUMNS * ROWS - 1 - i) & 1
        luma[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 235 if bit else 16


def read(luma):
    """(number, ms) or None when the checksum says the stamp can't be read."""
    cell = luma.shape[1] // COLUMNS
    edge = cell // 4
    if cell < 4 or luma.shape[0] < ROWS * cell:
        return None
    block = luma[: ROWS * cell, : COLUMNS * cell].reshape(ROWS, cell, COLUMNS, cell)
    means = block[:, edge : cell - edge, :, edge : cell - edge].mean(axis=(1, 3)).ravel()
    word = 0
    for mean in means:
        word = word << 1 | int(mean > 125)
    number, ms = word >> (TIME_BITS + CHECK_BITS), word >> CHECK_BITS & 0xFFFFFFFF
    return (number, ms) if word & 0xFF == _check(number, ms) else None


class Painter:
    """Makes I420 frames: a moving gradient that keeps an encoder honestly busy, with the stamp on top."""

    def __init__(self, width, height, noise=0):
        """`noise`: so many steps of grain below the stamp, for an encoder that is to need all of its bitrate."""
        if width % 2 or height % 2 or height < ROWS * (width // COLUMNS):
            raise ValueError("even sizes, and room for three rows of stamp cells")
        self.width, self.height = width, height
        x, y = np.meshgrid(np.arange(width * 2), np.arange(height))
        self._pattern = ((x // 2 + y) % 160 + 40).astype(np.uint8)
        self._noise = np.random.default_rng(1).integers(0, noise, (height * 2, width), dtype=np.uint8) if noise else None

    def frame(self, number, ms=None):
        size = self.width * self.height
        data = np.full(size * 3 // 2, 128, np.uint8)
        luma = data[:size].reshape(self.height, self.width)
        shift = number * 4 % self.width
        luma[:] = self._pattern[:, shift : shift + self.width]
        if self._noise is not None:
            rows = self.height - ROWS * (self.width // COLUMNS)
            shift = number * 397 % self.height
            luma[-rows:] += self._noise[shift : shift + rows]
        paint(luma, number, ms)
        return data
