"""What happens to cameras, done to pictures [rows, 8, 8] in 0 to 1; a sensor's range ends there."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from scipy import ndimage

Pictures = np.ndarray
Corruption = Callable[[Pictures, np.random.Generator], Pictures]


def blur(sigma: float) -> Corruption:
    return lambda pictures, _: ndimage.gaussian_filter(pictures, (0, sigma, sigma))


def brighter(by: float) -> Corruption:
    return lambda pictures, _: np.clip(pictures + by, 0, 1)


def gain(factor: float) -> Corruption:
    return lambda pictures, _: np.clip(pictures * factor, 0, 1)


def noise(sigma: float) -> Corruption:
    return lambda pictures, rng: np.clip(pictures + rng.normal(0, sigma, pictures.shape), 0, 1)


def specks(share: float) -> Corruption:
    """Single pixels black or white."""

    def corrupt(pictures: Pictures, rng: np.random.Generator) -> Pictures:
        hit = rng.random(pictures.shape) < share
        return np.where(hit, rng.integers(0, 2, pictures.shape), pictures)

    return corrupt


def _dead_column(pictures: Pictures, _: np.random.Generator) -> Pictures:
    found = pictures.copy()
    found[:, :, 4] = 0
    return found


def _covered(pictures: Pictures, _: np.random.Generator) -> Pictures:
    """Dirt on the lower quarter of the lens."""
    found = pictures.copy()
    found[:, 6:] = 0
    return found


def shifted(pixels: int) -> Corruption:
    """The mount has slipped to the side; nothing is seen beyond the edge."""

    def corrupt(pictures: Pictures, _: np.random.Generator) -> Pictures:
        found = np.zeros_like(pictures)
        found[:, :, pixels:] = pictures[:, :, :-pixels]
        return found

    return corrupt


#: Name -> what it does. Those of the pictures; the prior of classes is the sample's own (`more_of`).
ALL: Final[Mapping[str, Corruption]] = {
    "none": lambda pictures, _: pictures,
    "blur 0.5": blur(0.5),
    "blur 0.8": blur(0.8),
    "brightness + 0.05": brighter(0.05),
    "brightness + 0.2": brighter(0.2),
    "gain x 0.8": gain(0.8),
    "gain x 0.5": gain(0.5),
    "noise 0.1": noise(0.1),
    "noise 0.25": noise(0.25),
    "specks 5 %": specks(0.05),
    "dead column": _dead_column,
    "lower quarter covered": _covered,
    "shifted 1 px": shifted(1),
    "mirrored": lambda pictures, _: pictures[:, :, ::-1],
    "upside down": lambda pictures, _: pictures[:, ::-1, ::-1],
}


def more_of(labels: np.ndarray, one: int, times: float, rng: np.random.Generator) -> np.ndarray:
    """Indices of as many pictures, drawn so that class `one` has `times` its share and the others what is left."""
    share = float((labels == one).mean())
    weights = np.where(labels == one, times, (1 - times * share) / (1 - share))
    return rng.choice(len(labels), len(labels), p=weights / weights.sum())
