"""From a phantom's attenuation to a radiograph: exposure, film noise, collimation, side marker; and lateral views.

Reads and writes: nothing. Own work. Pictures are (H, W) float32 in [0, 1], bright where dense.
"""

import cv2
import numpy as np

from d2rnet.cxr.demo.canvas import FloatImage, Frame, Layer, band, blurred, cloud, ellipse, spline
from d2rnet.cxr.demo.findings import Style

Rng = np.random.Generator


def expose(attenuation: FloatImage, frame: Frame, style: Style, rng: Rng, *, marker: bool = True) -> FloatImage:
    """Turn attenuation into a film-like picture with exposure, gamma, noise, collimation and side marker.

    Args:
        attenuation: (H, W) float32, about 0 to 1.
        frame: of the picture.
        style: sets the noise.
        rng: of this picture.
        marker: put a lead "L" on the patient's left (the right of a frontal picture).

    Returns:
        (H, W) float32 in [0, 1].
    """
    height, width = attenuation.shape
    offset = rng.uniform(-0.03, 0.04)
    gain = rng.uniform(1.02, 1.16)
    gamma = rng.uniform(0.85, 1.15)
    tilt = rng.uniform(-0.04, 0.04, 2)
    picture = attenuation * gain + np.float32(offset)
    picture += (
        np.linspace(-tilt[0], tilt[0], width, dtype=np.float32)
        + np.linspace(-tilt[1], tilt[1], height, dtype=np.float32)[:, None]
    )
    noise = rng.standard_normal((height, width), dtype=np.float32)
    bright = np.maximum(picture - np.float32(0.70), 0)  # the film's shoulder: dense parts keep their structure
    picture += bright / (1 + bright / np.float32(0.32)) - bright
    picture += style.noise * (0.6 * noise + 1.2 * blurred(noise, 1.0)) * np.sqrt(np.clip(1.25 - picture, 0.3, 1.2))
    if marker and rng.random() < 0.6:
        _letter(picture, rng)
    picture = np.clip(picture, 0, 1) ** np.float32(gamma)
    if rng.random() < 0.3:
        picture *= _collimation(height, width, rng)
    return picture


def _letter(picture: FloatImage, rng: Rng) -> None:
    """Draw the lead letter in the upper corner of the patient's left."""
    height, width = picture.shape
    tall = 0.032 * max(height, width)
    corner = np.array([width * rng.uniform(0.92, 0.95), height * rng.uniform(0.06, 0.10)])
    strokes = np.array([(-0.3, -0.5), (-0.3, 0.5), (0.35, 0.5)]) * tall + corner
    letter = np.zeros(picture.shape, np.uint8)
    cv2.polylines(letter, [strokes.astype(np.int32)], False, 255, max(1, round(tall / 5)), cv2.LINE_AA)
    np.maximum(picture, letter.astype(np.float32) * np.float32(0.96 / 255), out=picture)


def _collimation(height: int, width: int, rng: Rng) -> FloatImage:
    """Factor that darkens up to 3 % along each edge."""
    window = np.full((height, width), 0.06, np.float32)
    top, bottom, left, right = (rng.uniform(0, 0.03, 4) * (height, height, width, width)).astype(int)
    window[top : height - bottom, left : width - right] = 1
    return blurred(window, 1.0)


def draw_lateral(frame: Frame, rng: Rng) -> FloatImage:
    """Attenuation of a left lateral chest: sternum and heart in front (left of the picture), spine behind.

    Lesions are not drawn: the workflow uses frontal views, laterals are there to be filtered out.
    """
    front = [(-0.45, -1.2), (-0.42, -0.45), (-0.75, -0.1), (-0.92, 0.6), (-0.95, 1.4), (-0.9, 3)]
    back = [(1.0, 3), (1.02, 1.4), (1.05, 0.6), (0.85, -0.1), (0.35, -0.5), (0.3, -1.2)]
    body = spline(front + back)
    apex_to_base = [(-0.2, 0.02), (0.25, -0.05), (0.62, 0.3), (0.78, 0.9), (0.80, 1.5), (0.70, 1.9)]
    dome_to_sternum = [(0.35, 1.55), (-0.1, 1.42), (-0.55, 1.5), (-0.74, 1.62), (-0.74, 0.9), (-0.55, 0.35)]
    lung = spline(apex_to_base + dome_to_sternum, closed=True)
    air = Layer(frame).fill(lung).values(0.02)
    heart = Layer(frame).fill(ellipse((-0.35, 1.15), (0.36, 0.42), angle=0.5, wobble=[0.05])).values(0.03)
    aorta = (
        Layer(frame).stroke([spline([(-0.15, 0.8), (-0.02, 0.45), (0.25, 0.42), (0.42, 0.8), (0.48, 1.7)])], 0.17).values(0.03)
    )
    hilum = Layer(frame).fill(ellipse((0.05, 0.8), (0.14, 0.12), wobble=[0.1, 0.1])).values(0.04)
    trachea = Layer(frame).fill(band(spline([(0.05, -0.5), (0.03, 0.0), (0.02, 0.62)]), 0.12)).values(0.015)
    vertebrae = Layer(frame)
    ribs = Layer(frame)
    for height in np.arange(-0.4, 2.3, 0.165):
        centre = 0.66 + 0.12 * np.sin((height + 0.2) * 1.4)
        vertebrae.fill(
            [
                (centre - 0.1, height),
                (centre + 0.1, height + 0.02),
                (centre + 0.1, height + 0.13),
                (centre - 0.1, height + 0.11),
            ]
        )
        ribs.stroke([spline([(centre + 0.15, height), (centre - 0.3, height + 0.25), (-0.7, height + 0.75)])], 0.06, 0.5)
    sternum = Layer(frame).stroke([spline([(-0.62, 0.15), (-0.80, 0.6), (-0.84, 1.15)])], 0.07).values(0.008)
    tissue = Layer(frame).fill(body).values(0.015) * (0.62 + 0.02 * cloud(frame, rng, 0.4))
    tissue -= 0.36 * air * (1 - 0.75 * heart - 0.3 * aorta * (1 - heart))
    return tissue + 0.14 * vertebrae.values(0.01) + 0.06 * ribs.values(0.01) + 0.08 * hilum - 0.1 * trachea + 0.12 * sternum
