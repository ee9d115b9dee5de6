"""What the catalogue of architectures offers: checkpoints known by what lies beside them, or by names and shapes."""

from __future__ import annotations

from converter.discovery import Adapter, Option, Recogniser

ADAPTER = Adapter(
    "architectures",
    recognisers=(Recogniser(
        "huggingface", "Hugging Face folder", "adapters.architectures.huggingface.recognise:recognise",
        floats="adapters.architectures.huggingface.quantized.weights:as_floats",
        markers=("config.json", "modules.json", "adapter_config.json"),
        options=(
            Option("task", str, "What the model is for, where the folder does not say or another head is wanted: "
                   "feature-extraction, fill-mask, text-classification, text2text-generation, encoder, …"),
            Option("cache", bool, "Give a causal language model key-value cache inputs (past_key_values.0.key, …) and outputs "
                   "(present.0.key, …); of an encoder-decoder model give the decoder alone with its cache, or with --task encoder "
                   "the encoder with what the decoder keeps of it.", False),
            Option("model_type", str, "What the model is, where config.json does not say it (transformers 2 and before): bert, roberta, …"),
            Option("base", str, "Of a PEFT adapter (LoRA), the folder of the model that it is merged into."),
            Option("dequantize", bool, "Read quantised weights (GPTQ, AWQ, bitsandbytes, FP8, MXFP4, compressed-tensors) as the "
                   "floats that they stand for.", False),
            Option("take", str, "The inputs that the graph takes, by transformers' names, separated by commas: "
                   "input_ids,attention_mask,token_type_ids,position_ids. The others get transformers' defaults."),
        )), Recogniser(
        "torchvision", "torchvision checkpoint", "adapters.architectures.torchvision.recognise:recognise",
        options=(Option("variant", str, "The architecture, by torchvision's name (resnet50), where a checkpoint of names and shapes alone "
                        "could be of several."),),
    )),
)
