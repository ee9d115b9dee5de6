"""What the ONNX adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Format, Option, Runtime

ADAPTER = Adapter(
    "onnx",
    formats=(Format("onnx", "ONNX model", (".onnx",), "model", "adapters.onnx.load:read_onnx", "adapters.onnx.export:save_onnx",
                    (Option("opset", int, "The version of ONNX's operators to write, 18 to 23.", 20),), extra="onnx", digests=True,
                    foreign="adapters.onnx.load:is_foreign", tensors="adapters.onnx.state_dict:load_state_dict",
                    values=True),),
    runtimes=(Runtime("onnxruntime", "ONNX Runtime on the CPU", "adapters.onnx.session:OnnxRuntimeSession",
                      "onnxruntime", (Option("opset", int, "The version of ONNX's operators."),
                                       Option("providers", list, "Execution providers, the preferred one first."),
                                       Option("threads", int, "How many threads an operator may use.")),
                      "adapters.onnx.apart:OnnxFileApart", (".onnx",), extra="onnx"),),
    extra="onnx",
)
