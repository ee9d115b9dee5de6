"""Tiny configurations of the architectures in `transformers`, with random weights, and inputs for them at any size.

A row of `FAMILIES` is a configuration, the model classes to build from it, and the kind of inputs they take. Weights are
drawn from a seed, with biases and scales that are not all zero or one, so that a missing term shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

VOCABULARY = 99


@dataclass(frozen=True)
class Sizes:
    """The sizes of a call: of the batch, of the text or sound, and the side of an image (0: the configuration's own)."""

    batch: int
    length: int
    image: int = 0

    def __str__(self) -> str:
        return f"batch {self.batch}, length {self.length}" + (f", image {self.image}" if self.image else "")


Arguments = dict[str, torch.Tensor]
Inputs = Callable[["Architecture", Sizes, torch.Generator], Arguments]


@dataclass(frozen=True)
class Family:
    """One configuration: of which class, what differs from its defaults, the model classes, and the inputs' kind.

    `batches` and `lengths` are run at beyond the traced ones, a batch of 2 and `traced`; `image` is the side of a traced image and `images` further
    ones. `settings` go to the model's class.
    """

    config: str
    models: tuple[str, ...]
    inputs: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    image: int = 0
    images: tuple[int, ...] = ()
    traced: int = 9
    lengths: tuple[int, ...] = (1, 7, 33)
    batches: tuple[int, ...] = (1, 2, 5)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """One model class of one family."""

    family: str
    model: str
    row: Family

    @property
    def name(self) -> str:
        return f"{self.family}/{self.model}"

    def build(self) -> nn.Module:
        """The module, seeded, in evaluation mode."""
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, self.row.config)(**self.row.overrides)
        module: nn.Module = getattr(transformers, self.model)(config, **self.row.settings)
        spread(module)
        return module.eval()

    def arguments(self, sizes: Sizes) -> Arguments:
        """Example arguments of `forward` at some sizes, always the same ones."""
        seed = sizes.batch * 1000 + sizes.length * 7 + sizes.image
        return INPUTS[self.row.inputs](self, sizes, torch.Generator().manual_seed(seed))

    @property
    def traced(self) -> Sizes:
        return Sizes(2, self.row.traced, self.row.image)

    @property
    def others(self) -> list[Sizes]:
        """Sizes that were not traced: other batches and lengths, and other images where the model takes them."""
        lengths = self.row.lengths or (self.row.traced,)
        found = [Sizes(batch, lengths[index % len(lengths)], self.row.image) for index, batch in enumerate(self.row.batches)]
        if self.row.lengths:
            found += [Sizes(1, lengths[-1], self.row.image), Sizes(5, lengths[0], self.row.image)]
        return found + [Sizes(3, self.row.traced, image) for image in self.row.images]


def spread(module: nn.Module) -> None:
    """Moves every float parameter and buffer of the state_dict off its initial value: zeros and ones hide what is missing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


# Inputs ----------------------------------------------------------------------------------------------------------------------


def _tokens(sizes: Sizes, generator: torch.Generator, length: int | None = None) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (sizes.batch, length or sizes.length), generator=generator)


def _mask(sizes: Sizes, length: int | None = None, left: bool = False) -> torch.Tensor:
    """Row i ends (or, for `left`, begins) i positions early, at least one being left; row 0 is whole."""
    length = length or sizes.length
    mask = torch.ones(sizes.batch, length, dtype=torch.int64)
    for row in range(sizes.batch):
        blank = min(row, length - 1)
        if blank:
            mask[row, :blank] = 0 if left else 1
            mask[row, length - blank:] = 1 if left else 0
    return mask


def text(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {"input_ids": _tokens(sizes, generator), "attention_mask": _mask(sizes)}


def ids(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {"input_ids": _tokens(sizes, generator)}


def classified(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """Text whose last position that counts is found by the padding token."""
    return {"input_ids": _tokens(sizes, generator), "attention_mask": _mask(sizes)}


def boxes(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    corner = torch.randint(0, 20, (sizes.batch, sizes.length, 2), generator=generator)
    extent = torch.randint(0, 20, (sizes.batch, sizes.length, 2), generator=generator)
    return {**text(own, sizes, generator), "bbox": torch.cat([corner, corner + extent], -1)}


def both(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """Text for an encoder and, two positions longer, for a decoder."""
    return {**text(own, sizes, generator), "decoder_input_ids": _tokens(sizes, generator, sizes.length + 2),
            "decoder_attention_mask": _mask(sizes, sizes.length + 2)}


def pixels(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {"pixel_values": torch.randn(sizes.batch, own.row.overrides.get("num_channels", 3), sizes.image, sizes.image,
                                        generator=generator)}


def oblong(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """Images half as wide again as they are high."""
    return {"pixel_values": torch.randn(sizes.batch, 3, sizes.image, sizes.image * 3 // 2, generator=generator)}


def interpolated(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {**pixels(own, sizes, generator), "interpolate_pos_encoding": True}  # type: ignore[dict-item]


def text_and_pixels(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {**text(own, sizes, generator), **pixels(own, sizes, generator)}


def wave(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """Sound of about 20 samples for each unit of length, 400 at least."""
    return {"input_values": torch.randn(sizes.batch, 400 + 20 * sizes.length, generator=generator)}


def spectrum(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """A spectrum of fixed length for an encoder, text for a decoder."""
    return {"input_features": torch.randn(sizes.batch, 16, 60, generator=generator), "decoder_input_ids": _tokens(sizes, generator)}


def frames(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    return {"input_features": torch.randn(sizes.batch, 20 + 2 * sizes.length, 16, generator=generator),
            "decoder_input_ids": _tokens(sizes, generator)}


def cached(own: Architecture, sizes: Sizes, generator: torch.Generator) -> Arguments:
    """A token to be generated after `length` others, whose keys and values are given."""
    import transformers

    config = getattr(transformers, own.row.config)(**own.row.overrides)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = transformers.DynamicCache()
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.randn(sizes.batch, heads, sizes.length, width, generator=generator) for _ in range(2))
        cache.update(keys, values, layer)
    return {"input_ids": _tokens(sizes, generator, 1), "attention_mask": _mask(sizes, sizes.length + 1),
            "past_key_values": cache, "use_cache": True}  # type: ignore[dict-item]


INPUTS: dict[str, Inputs] = {function.__name__: function for function in (
    text, ids, classified, boxes, both, pixels, oblong, interpolated, text_and_pixels, wave, spectrum, frames, cached)}


# Configurations --------------------------------------------------------------------------------------------------------------

_TINY = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 64}
_ENCODER = {**_TINY, "type_vocab_size": 2}
_DECODER = {**_TINY, "use_cache": False, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_EXPERTS = {**_DECODER, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
           "patch_size": 8, "num_labels": 5}
_BART = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
         "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
         "forced_eos_token_id": None}
_T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
       "use_cache": False, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "decoder_start_token_id": 0}
_SOUND = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
          "conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 2), "num_conv_pos_embeddings": 16,
          "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 3}
_TOWERS = {"text_config": {**_TINY, "projection_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
           "vision_config": {**_VISION, "projection_dim": 16}, "projection_dim": 16}


def _encoder(prefix: str, *models: str, config: str | None = None, inputs: str = "text", **overrides: Any) -> Family:
    """A text encoder: its base model, and heads by the words after `For`."""
    return Family(config or f"{prefix}Config", tuple(f"{prefix}{model}" for model in models or ("Model", "ForMaskedLM", "ForSequenceClassification")),
                  inputs, {**_ENCODER, **overrides})


def _decoder(prefix: str, *models: str, **overrides: Any) -> Family:
    return Family(f"{prefix}Config", tuple(f"{prefix}{model}" for model in models or ("Model", "ForCausalLM", "ForSequenceClassification")),
                  "text", {**_DECODER, **overrides})


def _experts(prefix: str, *models: str, **overrides: Any) -> Family:
    return Family(f"{prefix}Config", tuple(f"{prefix}{model}" for model in models or ("Model", "ForCausalLM")), "text",
                  {**_EXPERTS, **overrides})


def _vision(prefix: str, *models: str, image: int = 32, images: tuple[int, ...] = (), inputs: str = "pixels", **overrides: Any) -> Family:
    return Family(f"{prefix}Config", tuple(f"{prefix}{model}" for model in models or ("Model", "ForImageClassification")), inputs,
                  {**_VISION, **overrides}, image=image, images=images, lengths=())


def _net(prefix: str, *models: str, image: int = 64, images: tuple[int, ...] = (96,), inputs: str = "pixels", **overrides: Any) -> Family:
    """A convolutional network: its configuration is its own."""
    return Family(f"{prefix}Config", tuple(f"{prefix}{model}" for model in models or ("Model", "ForImageClassification")), inputs,
                  {"num_labels": 5, **overrides}, image=image, images=images, lengths=())


NAMED: dict[str, Family] = {
    "bert": _encoder("Bert"),
    "roberta": _encoder("Roberta", max_position_embeddings=66),
    "distilbert": Family("DistilBertConfig", ("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"), "text",
                         {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}),
    "albert": _encoder("Albert", embedding_size=16),
    "electra": _encoder("Electra", embedding_size=16),
    "deberta-v2": _encoder("DebertaV2", relative_attention=True, position_buckets=8, pos_att_type="p2c|c2p", max_relative_positions=-1,
                           norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False),
    "mpnet": _encoder("MPNet", max_position_embeddings=66),
    "xlnet": Family("XLNetConfig", ("XLNetModel", "XLNetLMHeadModel", "XLNetForSequenceClassification"), "text",
                    {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "use_mems_eval": False}),
    "roformer": _encoder("RoFormer", embedding_size=16),
    "gpt2": Family("GPT2Config", ("GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification"), "text",
                   {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False, "pad_token_id": 0}),
    "gpt_neox": _decoder("GPTNeoX"),
    "opt": Family("OPTConfig", ("OPTModel", "OPTForCausalLM", "OPTForSequenceClassification"), "text",
                  {**_DECODER, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "bloom": Family("BloomConfig", ("BloomModel", "BloomForCausalLM", "BloomForSequenceClassification"), "text",
                    {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False, "pad_token_id": 0}),
    "llama": _decoder("Llama"),
    "mistral": _decoder("Mistral", sliding_window=6),
    "mixtral": _experts("Mixtral", sliding_window=None),
    "qwen2": _decoder("Qwen2"),
    "qwen3": _decoder("Qwen3", head_dim=16),
    "gemma2": _decoder("Gemma2", head_dim=16, sliding_window=6),
    "phi3": _decoder("Phi3"),
    "falcon": _decoder("Falcon", alibi=False, new_decoder_architecture=False, multi_query=True),
    "vit": _vision("ViT"),
    "deit": _vision("DeiT", "Model", "ForImageClassification", "ForImageClassificationWithTeacher"),
    "dinov2": _vision("Dinov2", images=(48,)),
    "swin": Family("SwinConfig", ("SwinModel", "SwinForImageClassification"), "pixels",
                   {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_labels": 5},
                   image=32, images=(44, 64), lengths=()),
    "convnext": _net("ConvNext", hidden_sizes=(8, 12, 16, 20), depths=(1, 1, 2, 1), images=(96, 70)),
    "segformer": _net("Segformer", "Model", "ForSemanticSegmentation", "ForImageClassification", hidden_sizes=(8, 12, 16, 20), depths=(1, 1, 1, 1),
                      num_attention_heads=(1, 2, 2, 4), decoder_hidden_size=16),
    "t5": Family("T5Config", ("T5Model", "T5ForConditionalGeneration"), "both", _T5),
    "t5-encoder": Family("T5Config", ("T5EncoderModel",), "text", _T5),
    "bart": Family("BartConfig", ("BartModel", "BartForConditionalGeneration"), "both", _BART),
    "whisper": Family("WhisperConfig", ("WhisperModel", "WhisperForConditionalGeneration"), "spectrum",
                      {**{key: value for key, value in _BART.items() if key != "max_position_embeddings"}, "num_mel_bins": 16,
                       "max_source_positions": 30, "max_target_positions": 64}),
    "wav2vec2": Family("Wav2Vec2Config", ("Wav2Vec2Model", "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification"), "wave", _SOUND),
}

NAMED |= {f"{name}-cache": replace(NAMED[name], models=(model,), inputs="cached", overrides={**NAMED[name].overrides, **more})
          for name, model, more in (("gpt2", "GPT2LMHeadModel", {}), ("gpt_neox", "GPTNeoXForCausalLM", {"num_key_value_heads": 4}), ("opt", "OPTForCausalLM", {"num_key_value_heads": 4}),
                                    ("bloom", "BloomForCausalLM", {}), ("llama", "LlamaForCausalLM", {}),
                                    ("mistral", "MistralForCausalLM", {"sliding_window": None}), ("mixtral", "MixtralForCausalLM", {}),
                                    ("qwen2", "Qwen2ForCausalLM", {}), ("qwen3", "Qwen3ForCausalLM", {}), ("phi3", "Phi3ForCausalLM", {}),
                                    ("falcon", "FalconForCausalLM", {"num_key_value_heads": 1}))}
"""One step of generation, with the cache's tensors as inputs and outputs."""

MORE: dict[str, Family] = {
    "camembert": _encoder("Camembert", max_position_embeddings=66),
    "xlm-roberta": _encoder("XLMRoberta", max_position_embeddings=66),
    "ernie": _encoder("Ernie"),
    "mobilebert": _encoder("MobileBert", embedding_size=16, intra_bottleneck_size=32, true_hidden_size=32, num_feedforward_networks=2),
    "squeezebert": _encoder("SqueezeBert", embedding_size=32, q_groups=2, k_groups=2, v_groups=2, post_attention_groups=1, intermediate_groups=2,
                            output_groups=2),
    "data2vec-text": Family("Data2VecTextConfig", ("Data2VecTextModel", "Data2VecTextForMaskedLM"), "text", {**_ENCODER, "max_position_embeddings": 66}),
    "layoutlm": _encoder("LayoutLM", "Model", "ForMaskedLM", inputs="boxes", max_2d_position_embeddings=64),
    "funnel": Family("FunnelConfig", ("FunnelModel", "FunnelBaseModel"), "text",
                     {"vocab_size": VOCABULARY, "block_sizes": (1, 1), "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "num_decoder_layers": 1},
                     lengths=(5, 7, 33)),
    "longformer": Family("LongformerConfig", ("LongformerModel",), "text", {**_ENCODER, "attention_window": 4, "max_position_embeddings": 90}),
    "deberta": _encoder("Deberta", "Model", "ForMaskedLM", relative_attention=True, pos_att_type="p2c|c2p", max_relative_positions=16,
                        position_biased_input=False),
    "modernbert": _encoder("ModernBert", pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=6,
                           global_attn_every_n_layers=2),
    "nomic-bert": _encoder("NomicBert", "Model", "ForMaskedLM"),
    "convbert": _encoder("ConvBert", "Model", "ForMaskedLM", embedding_size=16, conv_kernel_size=3),
    "fnet": Family("FNetConfig", ("FNetModel", "FNetForMaskedLM"), "ids", {**_ENCODER, "use_tpu_fourier_optimizations": False}),
    "nystromformer": Family("NystromformerConfig", ("NystromformerModel", "NystromformerForMaskedLM"), "ids",
                            {**_ENCODER, "num_landmarks": 4, "segment_means_seq_len": 16, "conv_kernel_size": 3}, traced=16, lengths=(16,)),
    "rembert": _encoder("RemBert", "Model", "ForMaskedLM", input_embedding_size=16, output_embedding_size=24),
    "esm": _encoder("Esm", "Model", "ForMaskedLM", pad_token_id=1, position_embedding_type="rotary", token_dropout=False, mask_token_id=4),
    "ibert": _encoder("IBert", "Model", quant_mode=False, max_position_embeddings=66),
    "xlm": Family("XLMConfig", ("XLMModel", "XLMWithLMHeadModel"), "text",
                  {"vocab_size": VOCABULARY, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64, "pad_index": 0, "use_cache": False}),
    "megatron-bert": _encoder("MegatronBert", "Model", "ForMaskedLM"),
    "roc-bert": _encoder("RoCBert", "Model", enable_pronunciation=False, enable_shape=False),
    "splinter": _encoder("Splinter", "Model"),
    "canine": Family("CanineConfig", ("CanineModel",), "text", {**_ENCODER, "num_hash_buckets": 64, "local_transformer_stride": 4, "attend_from_chunk_width": 4,
                                                               "attend_to_chunk_width": 4}, lengths=(8, 16, 32), traced=12),
    "big_bird": _encoder("BigBird", "Model", "ForMaskedLM", attention_type="original_full"),
    "gpt_neo": Family("GPTNeoConfig", ("GPTNeoModel", "GPTNeoForCausalLM"), "text",
                      {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 48, "window_size": 6,
                       "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64, "use_cache": False}),
    "gptj": Family("GPTJConfig", ("GPTJModel", "GPTJForCausalLM"), "text",
                   {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64, "use_cache": False}),
    "gpt_bigcode": Family("GPTBigCodeConfig", ("GPTBigCodeModel", "GPTBigCodeForCausalLM"), "text",
                          {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}),
    "codegen": Family("CodeGenConfig", ("CodeGenModel", "CodeGenForCausalLM"), "text",
                      {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64, "n_ctx": 64, "use_cache": False}),
    "mpt": Family("MptConfig", ("MptModel", "MptForCausalLM"), "text",
                  {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "use_cache": False}),
    "gemma": _decoder("Gemma", head_dim=16),
    "gemma3": Family("Gemma3TextConfig", ("Gemma3TextModel", "Gemma3ForCausalLM"), "text", {**_DECODER, "head_dim": 16, "sliding_window": 6,
                                                                                           "layer_types": ["sliding_attention", "full_attention"]}),
    "olmo": _decoder("Olmo", "Model", "ForCausalLM"),
    "olmo2": _decoder("Olmo2", "Model", "ForCausalLM"),
    "cohere": _decoder("Cohere", "Model", "ForCausalLM"),
    "cohere2": _decoder("Cohere2", "Model", "ForCausalLM", sliding_window=6, layer_types=["sliding_attention", "full_attention"]),
    "starcoder2": _decoder("Starcoder2", "Model", "ForCausalLM", sliding_window=6),
    "stablelm": _decoder("StableLm", "Model", "ForCausalLM"),
    "granite": _decoder("Granite", "Model", "ForCausalLM"),
    "phi": _decoder("Phi", "Model", "ForCausalLM"),
    "persimmon": _decoder("Persimmon", "Model", "ForCausalLM"),
    "nemotron": _decoder("Nemotron", "Model", "ForCausalLM"),
    "helium": _decoder("Helium", "Model", "ForCausalLM", head_dim=8),
    "glm": _decoder("Glm", "Model", "ForCausalLM", head_dim=8),
    "glm4": _decoder("Glm4", "Model", "ForCausalLM", head_dim=8),
    "smollm3": _decoder("SmolLM3", "Model", "ForCausalLM"),
    "exaone4": _decoder("Exaone4", "Model", "ForCausalLM", sliding_window=6, sliding_window_pattern=2),
    "diffllama": _decoder("DiffLlama", "Model", "ForCausalLM"),
    "biogpt": Family("BioGptConfig", ("BioGptModel", "BioGptForCausalLM"), "text", _DECODER),
    "xglm": Family("XGLMConfig", ("XGLMModel", "XGLMForCausalLM"), "text",
                   {"vocab_size": VOCABULARY, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64, "use_cache": False}),
    "openai-gpt": Family("OpenAIGPTConfig", ("OpenAIGPTModel", "OpenAIGPTLMHeadModel"), "text",
                         {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "ctrl": Family("CTRLConfig", ("CTRLModel", "CTRLLMHeadModel"), "text",
                   {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 64, "use_cache": False}),
    "qwen2_moe": _experts("Qwen2Moe", shared_expert_intermediate_size=24),
    "qwen3_moe": _experts("Qwen3Moe"),
    "olmoe": _experts("Olmoe"),
    "gpt_oss": _experts("GptOss", head_dim=8, sliding_window=6),
    "deepseek_v3": _experts("DeepseekV3", num_key_value_heads=4, n_routed_experts=4, n_group=2, topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8,
                            v_head_dim=8, first_k_dense_replace=1),
    "mamba": Family("MambaConfig", ("MambaModel", "MambaForCausalLM"), "ids",
                    {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "use_cache": False}),
    "mamba2": Family("Mamba2Config", ("Mamba2Model",), "ids",
                     {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 8, "expand": 2,
                      "n_groups": 2, "chunk_size": 8, "use_cache": False}),
    "rwkv": Family("RwkvConfig", ("RwkvModel",), "ids",
                   {"vocab_size": VOCABULARY, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "use_cache": False}),
    "pegasus": Family("PegasusConfig", ("PegasusModel", "PegasusForConditionalGeneration"), "both", _BART),
    "mbart": Family("MBartConfig", ("MBartModel", "MBartForConditionalGeneration"), "both", _BART),
    "m2m100": Family("M2M100Config", ("M2M100Model", "M2M100ForConditionalGeneration"), "both", _BART),
    "marian": Family("MarianConfig", ("MarianModel", "MarianMTModel"), "both", _BART),
    "blenderbot": Family("BlenderbotConfig", ("BlenderbotModel",), "both", _BART),
    "led": Family("LEDConfig", ("LEDModel",), "both", {**_BART, "attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}),
    "mt5": Family("MT5Config", ("MT5Model",), "both", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "longt5": Family("LongT5Config", ("LongT5Model",), "both", {**_T5, "local_radius": 3}),
    "switch": Family("SwitchTransformersConfig", ("SwitchTransformersModel",), "both", {**_T5, "num_experts": 4, "expert_capacity": 64}),
    "prophetnet": Family("ProphetNetConfig", ("ProphetNetModel",), "both",
                         {"vocab_size": VOCABULARY, "hidden_size": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_encoder_layers": 2, "num_decoder_layers": 2,
                          "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "max_position_embeddings": 64, "ngram": 2, "num_buckets": 8,
                          "relative_max_distance": 16, "use_cache": False}),
    "clip": Family("CLIPConfig", ("CLIPModel",), "text_and_pixels", _TOWERS, image=32),
    "clip-text": Family("CLIPTextConfig", ("CLIPTextModelWithProjection",), "text", _TOWERS["text_config"]),  # type: ignore[arg-type]
    "clip-vision": Family("CLIPVisionConfig", ("CLIPVisionModelWithProjection",), "pixels", _TOWERS["vision_config"], image=32, lengths=()),  # type: ignore[arg-type]
    "siglip": Family("SiglipConfig", ("SiglipModel",), "text_and_pixels", {key: value for key, value in _TOWERS.items() if key != "projection_dim"}, image=32),
    "chinese_clip": Family("ChineseCLIPConfig", ("ChineseCLIPModel",), "text_and_pixels", _TOWERS, image=32),
    "blip": Family("BlipConfig", ("BlipModel",), "text_and_pixels", _TOWERS, image=32),
    "beit": _vision("Beit", image=32),
    "data2vec-vision": _vision("Data2VecVision"),
    "yolos": _vision("Yolos", "Model", "ForObjectDetection", image_size=[32, 48], num_detection_tokens=6, inputs="oblong"),
    "dpt": _vision("DPT", "Model", "ForDepthEstimation", backbone_out_indices=[0, 1, 2, 3], num_hidden_layers=4, neck_hidden_sizes=[8, 12, 16, 20], fusion_hidden_size=16),
    "vit_msn": _vision("ViTMSN"),
    "ijepa": _vision("IJepa"),
    "dinov2-registers": _vision("Dinov2WithRegisters", images=(48,)),
    "dinov3_vit": Family("DINOv3ViTConfig", ("DINOv3ViTModel",), "pixels", _VISION, image=32, images=(48,), lengths=()),
    "swinv2": Family("Swinv2Config", ("Swinv2Model", "Swinv2ForImageClassification"), "pixels",
                     {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_labels": 5}, image=32, images=(64,), lengths=()),
    "focalnet": _net("FocalNet", embed_dim=8, depths=(1, 1), focal_levels=(2, 2), focal_windows=(3, 3), hidden_sizes=(8, 16), image_size=64, patch_size=4),
    "mobilevit": _net("MobileViT", image_size=64, hidden_sizes=(16, 24, 32), neck_hidden_sizes=(8, 12, 16, 20, 24, 32, 40), num_attention_heads=4, expand_ratio=2.0),
    "mobilevitv2": _net("MobileViTV2", image_size=64, width_multiplier=0.25, n_attn_blocks=(1, 1, 1)),
    "poolformer": _net("PoolFormer", depths=(1, 1, 1, 1), hidden_sizes=(8, 12, 16, 20)),
    "resnet": _net("ResNet", embedding_size=8, hidden_sizes=(8, 16, 24, 32), depths=(1, 1, 1, 1), images=(96, 50)),
    "regnet": _net("RegNet", embedding_size=8, hidden_sizes=(8, 16, 24, 32), depths=(1, 1, 1, 1), groups_width=8),
    "bit": _net("Bit", embedding_size=32, hidden_sizes=(32, 32, 64, 64), depths=(1, 1, 1, 1), num_groups=8),
    "efficientnet": _net("EfficientNet", image_size=64, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    "mobilenet_v1": _net("MobileNetV1", depth_multiplier=0.25),
    "mobilenet_v2": _net("MobileNetV2", depth_multiplier=0.25),
    "levit": _net("Levit", hidden_sizes=(16, 24, 32), num_attention_heads=(2, 3, 4), depths=(1, 1, 1), key_dim=(8, 8, 8), image_size=64, images=()),
    "pvt": _net("Pvt", images=(), image_size=64, depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32), num_attention_heads=(1, 2, 2, 4)),
    "pvt_v2": _net("PvtV2", image_size=64, depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32), num_attention_heads=(1, 2, 2, 4)),
    "cvt": _net("Cvt", embed_dim=(8, 16, 24), depth=(1, 2, 3), num_heads=(1, 2, 4), cls_token=(False, False, True)),
    "glpn": _net("GLPN", "Model", "ForDepthEstimation", hidden_sizes=(8, 12, 16, 20), depths=(1, 1, 1, 1), num_attention_heads=(1, 2, 2, 4), decoder_hidden_size=16),
    "convnextv2": _net("ConvNextV2", hidden_sizes=(8, 12, 16, 20), depths=(1, 1, 2, 1)),
    "swiftformer": _net("SwiftFormer", depths=(1, 1, 1, 1), embed_dims=(8, 12, 16, 20)),
    "hgnet_v2": _net("HGNetV2", "ForImageClassification", "Backbone"),
    "textnet": _net("TextNet"),
    "upernet": Family("UperNetConfig", ("UperNetForSemanticSegmentation",), "pixels",
                      {"backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 1, 1),
                                           "out_features": ["stage1", "stage2", "stage3", "stage4"]}, "hidden_size": 16, "auxiliary_in_channels": 24,
                       "auxiliary_channels": 8, "num_labels": 5}, image=64, images=(96,), lengths=()),
    "vitdet": _vision("VitDet", "Model", hidden_size=32, window_block_indices=[], residual_block_indices=[], images=()),
    "detr": Family("DetrConfig", ("DetrModel", "DetrForObjectDetection"), "pixels",
                   {**{key: value for key, value in _BART.items() if key not in ("vocab_size", "use_cache", "forced_eos_token_id")}, "num_queries": 7,
                    "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                    "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": (8, 16, 24, 32), "depths": (1, 1, 1, 1),
                                        "out_features": ["stage4"]}}, image=64, images=(96,), lengths=()),
    "swin2sr": Family("Swin2SRConfig", ("Swin2SRForImageSuperResolution",), "pixels",
                      {"image_size": 16, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}, image=16, images=(24,), lengths=()),
    "hubert": Family("HubertConfig", ("HubertModel", "HubertForCTC"), "wave", _SOUND),
    "wavlm": Family("WavLMConfig", ("WavLMModel",), "wave", {**_SOUND, "num_buckets": 8, "max_bucket_distance": 16}),
    "data2vec-audio": Family("Data2VecAudioConfig", ("Data2VecAudioModel",), "wave", {**_SOUND, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}),
    "unispeech": Family("UniSpeechConfig", ("UniSpeechModel",), "wave", _SOUND),
    "sew": Family("SEWConfig", ("SEWModel",), "wave", {**_SOUND, "squeeze_factor": 2}),
    "wav2vec2-conformer": Family("Wav2Vec2ConformerConfig", ("Wav2Vec2ConformerModel",), "wave", {**_SOUND, "conv_depthwise_kernel_size": 5}),
    "speech_to_text": Family("Speech2TextConfig", ("Speech2TextModel", "Speech2TextForConditionalGeneration"), "frames",
                             {**{key: value for key, value in _BART.items() if key != "max_position_embeddings"}, "input_feat_per_channel": 16, "conv_channels": 16, "max_source_positions": 90, "max_target_positions": 64}),
}

FAMILIES = {**NAMED, **MORE}


def architectures(*names: str) -> Iterator[Architecture]:
    """Every architecture, or those of the families, or of the names, that are given, in the order in which they are."""
    everything = [Architecture(family, model, row) for family, row in FAMILIES.items() for model in row.models]
    chosen = {item.name: item for name in names for item in everything if name in (item.family, item.name, item.model)}
    yield from chosen.values() if names else everything
