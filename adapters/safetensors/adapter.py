"""What the safetensors adapter offers."""

from __future__ import annotations

from converter.discovery import Adapter, Format

ADAPTER = Adapter("safetensors", formats=(
    Format("safetensors", "safetensors state_dict", (".safetensors",), "parameters",
           "adapters.safetensors.read:load_safetensors", "adapters.safetensors.write:save_safetensors"),))
