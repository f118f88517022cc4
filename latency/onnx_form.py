"""How this version writes ONNX files: a file of another form has other nodes and other latency."""

from __future__ import annotations

from collections.abc import Mapping

OPSET = 23
FORM = 2
"""1 was attention by `scaled_dot_product_attention`; 2 is `supernet.onnx_attention`."""

ONNX_FACTS: Mapping[str, str] = {
    "opset": str(OPSET),
    "export_form": str(FORM),
    "precision": "fp32",
}
"""See `DeviceBackend.build_facts`."""
