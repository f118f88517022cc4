"""How a subnet of the front is used: a command, and the lines of Python that feed it."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from reports import policies
from reports.axes import best_by_quality
from reports.stages import FrontSubnet, RunData

EXACT_SUMS = """\
processor = Path("/proc/cpuinfo")
if not (processor.exists() and "_vnni" in processor.read_text()):
    # Without it 8-bit sums overflow on x86 processors that have no VNNI
    options.add_session_config_entry("session.x64quantprecision", "1")
"""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What to type, from the run directory."""

    name: str
    command: str
    code: str


def use(data: RunData) -> Use | None:
    """How the subnet with the best quality on validation is used; None where no script ships."""
    subnet = best_by_quality(data.front)
    script, splits = data.front.script, data.splits or {}
    if subnet is None or script is None or subnet.export is None:
        return None
    if splits.get("kind") == "image-classification":
        try:
            code, what = _classify(data, subnet, splits), "photo.png"
        except (KeyError, TypeError, ValueError):
            return None  # a splits.json that does not say how images are fed
    else:
        code, what = _generate(script, _model(subnet)), '"Once upon a time" 100'
    return Use(name=subnet.name, command=f"python {script} {_model(subnet)} {what}", code=code)


def _model(subnet: FrontSubnet) -> str:
    """The ONNX file, which lies there whatever else the device runs."""
    return str(PurePosixPath(subnet.export or "").with_name(f"{subnet.name}.onnx"))


def _classify(data: RunData, subnet: FrontSubnet, splits: Any) -> str:
    size, channels = int(splits["image_size"]), int(splits["channels"])
    mode = "L" if channels == 1 else "RGB"
    mean = ", ".join(f"{value:.6g}" for value in splits["normalisation"]["mean"])
    std = ", ".join(f"{value:.6g}" for value in splits["normalisation"]["std"])
    threads = data.front.device.threads or 1
    squares = policies.squares(subnet.architecture)
    exact = EXACT_SUMS if any(square.integer_inputs for square in squares) else ""
    imports = "from pathlib import Path\n\n" if exact else ""
    return f"""{imports}import numpy as np
import onnxruntime
from PIL import Image

image = Image.open("photo.png").convert("{mode}")
image = image.resize(({size}, {size}), Image.Resampling.BILINEAR)
pixels = np.asarray(image, dtype=np.float32).reshape(1, {size}, {size}, {channels})
images = (pixels / 255 - np.float32([{mean}])) / np.float32([{std}])

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}  # as it was measured
{exact}providers = ["CPUExecutionProvider"]
session = onnxruntime.InferenceSession("{_model(subnet)}", options, providers)
(logits,) = session.run(["logits"], {{"images": images.transpose(0, 3, 1, 2)}})
best = logits[0].argmax()  # a place in `classes`, see Data and splits
"""


def _generate(script: str, model: str) -> str:
    folder = PurePosixPath(script).parent
    return f"""import sys

sys.path.append("{folder}")
from {PurePosixPath(script).stem} import Generator

generate = Generator("{model}")  # tokenizer, prefill and decoding with its cache
text = generate("Once upon a time", tokens=100, temperature=0.7)
"""
