"""Pictures of pages, compared with approved ones cell by cell.

A page is drawn in a font that matplotlib brings along, so that two machines break its lines in the same places: in a
font of another width a long page is another picture. What is left between them (another Chromium, another way to
smooth letters) is averaged away: a picture is compared in cells of `CELL` pixels, in which a line of text is a shade
of grey. `BNF_ALIGN_APPROVE=1` writes the approved pictures anew.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

APPROVED = Path(__file__).parent / "approved"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SCALE = 0.5
"""Of an approved picture: small enough for a repository, large enough to be looked at."""
COLOURS = 24
CELL = 16
"""Pixels of the page."""
SHADE = 24.0
"""Of 255: cells that differ by less, in each of red, green and blue, are alike."""
MOST = 0.003
"""Share of cells that may differ. Measured: none when a page is drawn again, 0.02 % of a report in letters of another
shape and the same width; 0.4 % of a report without colours, 23 % without one of its sections, 2.5 % of a conversation
without thumbs."""
HEIGHT = 0.005
"""By how much of its height a page may be longer or shorter."""


class Difference(NamedTuple):
    """How far a picture is from the approved one."""

    height: float
    """By how much of the approved height."""
    cells: float
    """Share of cells that are not alike, of those that both have."""

    @property
    def tolerable(self) -> bool:
        """Whether the pictures show the same page."""
        return self.height <= HEIGHT and self.cells <= MOST


def draw_in(driver, font: str = "DejaVuSans") -> None:
    """Draw the page in one of matplotlib's fonts, and stop everything that moves or blinks."""
    driver.execute_async_script(
        """
        const [font, done] = arguments;
        const bytes = Uint8Array.from(atob(font), (letter) => letter.charCodeAt(0));
        const face = new FontFace("approved", bytes.buffer);
        const still = "*, ::before, ::after { animation: none !important; transition: none !important; "
          + "caret-color: transparent !important; font-family: approved !important; }";
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(still);
        document.adoptedStyleSheets = [sheet];
        document.fonts.add(face);
        face.load().then(() => requestAnimationFrame(() => requestAnimationFrame(done)));
        """,
        base64.b64encode((FONTS / f"{font}.ttf").read_bytes()).decode(),
    )


def picture(driver) -> Image.Image:
    """The whole page, above and below what is seen, at the scale of the approved ones."""
    width, height = driver.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": SCALE}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def approved(name: str) -> Image.Image:
    """An approved picture, in its own few colours."""
    return Image.open(APPROVED / f"{name}.png")


def difference(found: Image.Image, wanted: Image.Image) -> Difference:
    """How far `found` is from `wanted`, in the colours of that; of another width it is another page altogether."""
    if found.width != wanted.width:
        return Difference(1.0, 1.0)
    height = abs(found.height - wanted.height) / wanted.height
    one, other = _cells(found.convert("RGB").quantize(palette=wanted, dither=Image.Dither.NONE)), _cells(wanted)
    rows = min(len(one), len(other))
    apart = np.abs(one[:rows] - other[:rows]).max(axis=-1) > SHADE
    return Difference(height, float(apart.mean()))


def check(driver, name: str) -> None:
    """Compare the page with the approved picture of that name, or make it that.

    Raises:
        AssertionError: If they differ; both lie side by side then in the folder of `BNF_ALIGN_PICTURES`, if it is set.
    """
    found = picture(driver)
    if os.environ.get("BNF_ALIGN_APPROVE"):
        APPROVED.mkdir(exist_ok=True)
        found.quantize(COLOURS, dither=Image.Dither.NONE).save(APPROVED / f"{name}.png", optimize=True)
    apart = difference(found, approved(name))
    if not apart.tolerable and (folder := os.environ.get("BNF_ALIGN_PICTURES")):
        Path(folder).mkdir(parents=True, exist_ok=True)
        found.save(Path(folder) / f"{name}.png")
    assert apart.tolerable, (
        f"{name} is not what was approved: {apart.cells:.1%} of its cells differ (at most {MOST:.0%}), its height by "
        f"{apart.height:.1%}. BNF_ALIGN_PICTURES=FOLDER keeps what was found; if it is right, `make approve`."
    )


def _cells(image: Image.Image) -> np.ndarray:
    """(rows, columns, 3) means of cells; what is left at the right and at the bottom is a cell too."""
    size = round(CELL * SCALE)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    rows, columns = (-(-side // size) for side in pixels.shape[:2])
    padded = np.pad(
        pixels, ((0, rows * size - pixels.shape[0]), (0, columns * size - pixels.shape[1]), (0, 0)), mode="edge"
    )
    return padded.reshape(rows, size, columns, size, 3).mean(axis=(1, 3))
