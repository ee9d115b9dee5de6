"""The names that safetensors gives to element types."""

from __future__ import annotations

from converter.ir import DType

FROM_FILE: dict[str, DType] = {
    "BOOL": DType.BOOL, "U8": DType.UINT8, "I8": DType.INT8, "U16": DType.UINT16, "I16": DType.INT16, "U32": DType.UINT32,
    "I32": DType.INT32, "U64": DType.UINT64, "I64": DType.INT64, "F16": DType.FLOAT16, "BF16": DType.BFLOAT16,
    "F32": DType.FLOAT32, "F64": DType.FLOAT64, "C64": DType.COMPLEX64, "F8_E4M3": DType.FLOAT8_E4M3FN,
    "F8_E5M2": DType.FLOAT8_E5M2, "F8_E8M0": DType.FLOAT8_E8M0FNU, "F8_E4M3FNUZ": DType.FLOAT8_E4M3FNUZ,
    "F8_E5M2FNUZ": DType.FLOAT8_E5M2FNUZ,
}
TO_FILE: dict[DType, str] = {dtype: name for name, dtype in FROM_FILE.items()}
