"""Pictures to pixel tensors, as the image processors of the transformers library do it with Pillow.

The steps are theirs, in their order: to RGB, resize, crop the centre, rescale, normalise. As there, the orientation that a camera
notes in EXIF is not applied, transparency is dropped, and of an animation the first frame counts. Pillow decodes and resizes;
a picture comes from a stranger, so its size is looked at before its pixels are decoded.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pythiadb.errors import InvalidModel, InvalidParameter, LimitExceeded

Pixels = NDArray[Any]

MAX_PIXELS = 50_000_000  # of a picture, decoded: 150 MB as RGB; below the size at which Pillow warns
MAX_SIDE = 4096  # of what a model takes
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # no format that starts another program
GRAPH_FORMATS = ("JPEG", "PNG")  # what the operators of graphs decode
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
RESAMPLINGS = {int(value): name for name, value in _FILTERS.items()}
COLORS = {"RGB": 3, "BGR": 3, "L": 1}
LAYOUTS = ("channels_first", "channels_last")
TYPES = ("float32", "uint8")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The steps from a decoded picture to pixels, as they are stored in a specification.

    `resize` is (height, width), or one number for the shorter edge, or None. `crop` is (height, width) of the centre; a picture
    that is smaller is filled up with zeros. A value v becomes v * scale + offset, then (v - mean) / std for each channel. Type
    uint8 keeps the bytes as they are.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: str = "bicubic"
    scale: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    color: str = "RGB"
    layout: str = "channels_first"
    type: str = "float32"
    max_pixels: int = MAX_PIXELS

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of every result."""
        size = self.crop or self.resize
        if not isinstance(size, tuple):
            raise InvalidModel(
                "image preprocessing does not end in one size",
                detail="Pictures of a batch must have the same height and width.",
            )
        return size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of every result, in the order of the layout."""
        height, width = self.size
        channels = COLORS[self.color]
        first = self.layout == "channels_first"
        return (channels, height, width) if first else (height, width, channels)

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as a specification stores them."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def read_params(params: Mapping[str, Any]) -> Preprocessing:
    """Read the parameters of a specification; raise InvalidModel for anything malformed or out of bounds."""
    known = set(Preprocessing.__slots__)
    if unknown := sorted(set(params) - known):
        raise InvalidModel(f'unknown image parameter "{unknown[0]}"')
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in params.items()}
    made = Preprocessing(**{"resize": None, "crop": None, **values})
    for name, good in _checks(made).items():
        if not good:
            raise InvalidModel(f'invalid value for image parameter "{name}": {params.get(name)!r}')
    _ = made.size
    return made


def load(params: Mapping[str, Any]) -> Callable[[bytes], Pixels]:
    """Return the function from the bytes of a picture to its pixels, [channels, height, width] or as the layout says.

    Raise InvalidModel for bad parameters. The function raises InvalidParameter for bytes that are no complete picture of a known
    format, LimitExceeded for a picture with too many pixels.
    """
    steps = read_params(params)

    def pixels(data: bytes) -> Pixels:
        return _transform(_decode(data, steps.max_pixels, steps.color), steps)

    return pixels


def checked_file(data: bytes) -> Pixels:
    """Return the bytes of a picture that a graph decodes itself, after decoding them here.

    The library that the graph calls ends the whole process at bytes that are not a JPEG or PNG. Raises what `load` raises.
    """
    _decode(data, MAX_PIXELS, "RGB", GRAPH_FORMATS)
    return np.frombuffer(data, dtype=np.uint8)


def _decode(data: bytes, max_pixels: int, color: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            _check_pixels(picture.size, max_pixels)
            picture.load()
            return _to_color(picture, color)
    except LimitExceeded:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitExceeded(
            f"image has more than {max_pixels} pixels", detail=f"{str(error).rstrip('.')}."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, and others
        raise InvalidParameter(
            "image cannot be decoded",
            detail=_reason(error),
            hint=f"Known formats are {', '.join(formats)}.",
        ) from error


def _check_pixels(size: tuple[int, int], limit: int, what: str = "image") -> None:
    width, height = size
    if width * height > limit:
        raise LimitExceeded(
            f"{what} of {width} x {height} pixels exceeds the limit of {limit} pixels",
            hint="Make the image smaller.",
        )


def _to_color(picture: Image.Image, color: str) -> Image.Image:
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns about the direct way
    return picture.convert("L" if color == "L" else "RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "The bytes are not an image of a known format."
    text = " ".join(str(error).split()).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else "The file is damaged."


def _transform(picture: Image.Image, steps: Preprocessing) -> Pixels:
    picture = _resize(picture, steps)
    values = np.asarray(picture)
    if values.ndim == 2:
        values = values[:, :, np.newaxis]
    if steps.crop is not None:
        values = _crop(values, steps.crop)
    if steps.color == "BGR":
        values = values[:, :, ::-1]
    if steps.type != "uint8":
        values = _normalise(values, steps)
    if steps.layout == "channels_first":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values)


def _resize(picture: Image.Image, steps: Preprocessing) -> Image.Image:
    if steps.resize is None:
        return picture
    width, height = picture.size
    if isinstance(steps.resize, tuple):
        target = (steps.resize[1], steps.resize[0])
    else:
        short, long = sorted((width, height))
        other = max(1, int(steps.resize * long / short))
        target = (steps.resize, other) if width <= height else (other, steps.resize)
        _check_pixels(target, steps.max_pixels, "resized image")  # a very long strip grows
    if target == picture.size:
        return picture
    return picture.resize(target, _FILTERS[steps.resample])


def _crop(values: Pixels, size: tuple[int, int]) -> Pixels:
    """Cut the centre out, or fill up with zeros around it where the picture is smaller."""
    for axis, wanted in enumerate(size):
        found = values.shape[axis]
        if found >= wanted:
            start = (found - wanted) // 2
            values = np.take(values, range(start, start + wanted), axis=axis)
        else:
            before = math.ceil((wanted - found) / 2)
            padding = [(0, 0)] * values.ndim
            padding[axis] = (before, wanted - found - before)
            values = np.pad(values, padding)
    return values


def _normalise(values: Pixels, steps: Preprocessing) -> Pixels:
    scaled: Pixels = (values.astype(np.float64) * steps.scale + steps.offset).astype(np.float32)
    if steps.mean is not None:
        scaled = scaled - np.asarray(steps.mean, np.float32)
    if steps.std is not None:
        scaled = scaled / np.asarray(steps.std, np.float32)
    return scaled


def _checks(steps: Preprocessing) -> dict[str, bool]:
    channels = COLORS.get(steps.color, 0) if isinstance(steps.color, str) else 0
    return {
        "resize": steps.resize is None or _is_side(steps.resize) or _is_size(steps.resize),
        "crop": steps.crop is None or _is_size(steps.crop),
        "resample": steps.resample in _FILTERS,
        "scale": _is_number(steps.scale),
        "offset": _is_number(steps.offset),
        "color": channels > 0,
        "mean": steps.mean is None or _is_list(steps.mean, channels),
        "std": steps.std is None or (_is_list(steps.std, channels) and 0 not in steps.std),
        "layout": steps.layout in LAYOUTS,
        "type": steps.type in TYPES,
        "max_pixels": _is_whole(steps.max_pixels) and 0 < steps.max_pixels <= MAX_PIXELS,
    }


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return _is_whole(value) and 0 < value <= MAX_SIDE


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_side, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(map(_is_number, value))
