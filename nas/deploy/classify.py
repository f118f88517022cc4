"""Classify images with an exported subnet, fed as it was trained.

Needs onnxruntime, numpy and pillow, and the JSON that lies beside each exported model. It is free
to be copied and changed.

    python classify.py s03.onnx photo.png other.jpg

    from classify import Classifier
    classify = Classifier("s03.onnx")
    print(classify("photo.png"))    # {"cat": 0.98, "dog": 0.02}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


class Classifier:
    """An exported image classifier in onnxruntime."""

    def __init__(self, model: str | Path) -> None:
        """Open a model with the threads and the provider that it was measured with.

        Args:
            model: The ONNX file; a JSON of the same name says how to feed it.
        """
        import onnxruntime

        how = json.loads(Path(model).with_suffix(".json").read_text(encoding="utf-8"))
        self.classes: list[str] = how["task"]["classes"]
        _, self.channels, self.image_size, _ = how["inputs"][0]["shape"]
        normalisation = how["task"]["normalisation"]
        self.mean = np.array(normalisation["mean"], dtype=np.float32)[:, None, None]
        self.std = np.array(normalisation["std"], dtype=np.float32)[:, None, None]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = how["runtime"]["intra_op_num_threads"]
        config = dict(how["runtime"].get("session_config", {}))
        processor = Path("/proc/cpuinfo")
        if not (processor.exists() and b"_vnni" in processor.read_bytes()):
            config.update(how["runtime"].get("session_config_without_vnni", {}))
        for name, value in config.items():
            options.add_session_config_entry(name, value)
        provider = how["runtime"].get("provider", "CPUExecutionProvider")
        self.session = onnxruntime.InferenceSession(str(model), options, providers=[provider])

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the model.

        Args:
            pixels: From `read_image`, shape `(batch, channels, size, size)`.

        Returns:
            Shape `(batch, classes)`.
        """
        images = (pixels.astype(np.float32) / 255 - self.mean) / self.std
        logits: NDArray[np.float32] = self.session.run(["logits"], {"images": images})[0]
        return logits

    def __call__(self, image: str | Path | BinaryIO) -> dict[str, float]:
        """Return the probability of each class, the most probable first."""
        pixels = read_image(image, image_size=self.image_size, channels=self.channels)
        logits = self.logits(pixels[None])[0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        order = np.argsort(-weights, kind="stable")
        return {self.classes[index]: float(weights[index] / weights.sum()) for index in order}


def read_image(file: str | Path | BinaryIO, *, image_size: int, channels: int) -> NDArray[np.uint8]:
    """Read an image as training does: upright (EXIF), grey or RGB, resized to a square.

    Args:
        file: Its path, or the open file.
        image_size: Side of the result, pixels; bilinear with antialiasing, the aspect is not kept.
        channels: 1 for grey, 3 for RGB; transparency is dropped.

    Returns:
        Shape `(channels, image_size, image_size)`.

    Raises:
        OSError: The file is no image, or truncated; Pillow has further errors for damaged ones.
        ValueError: Its pixels have 32 bits, whose white is not known.
    """
    with Image.open(file) as opened:
        image: Any = ImageOps.exif_transpose(opened)
        if image.mode in ("I", "F"):
            raise ValueError("pixels of 32 bits, whose white is not known")
        if image.mode.startswith("I;16"):
            # Pillow clips 16 bits at 255 instead of scaling them.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if channels == 1 else "RGB")
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return (
        np.asarray(image, dtype=np.uint8)
        .reshape(image_size, image_size, channels)
        .transpose(2, 0, 1)
    )


def main(arguments: list[str]) -> None:
    """Print the most probable classes of each image."""
    if len(arguments) < 2:
        raise SystemExit("usage: python classify.py MODEL.onnx IMAGE [IMAGE ...]")
    try:
        classify = Classifier(arguments[0])
    except OSError as error:
        raise SystemExit(f"classify.py: {error}; the model needs its .json beside it") from None
    for image in arguments[1:]:
        try:
            shares = list(classify(image).items())[:3]
        except (OSError, ValueError) as error:
            raise SystemExit(f"classify.py: {image} cannot be read: {error}") from None
        print(f"{image}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares))


if __name__ == "__main__":
    main(sys.argv[1:])
