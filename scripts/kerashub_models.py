"""Tiny networks of KerasHub with random weights: every architecture in a few lines, and nothing is downloaded.

What KerasHub initialises with almost nothing (kernels and embeddings of standard deviation 0.02, biases of 0) gets
weights that count, so that attention depends on its queries and every parameter shows in the gradient. Token ids come
with real padding. KerasHub is imported when a model is built: the rest of the scripts does without it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from scripts import architectures

WORDS, LENGTH, HIDDEN, PIXELS = 31, 7, 16, 32
# What most constructors call the same.
COMMON = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": HIDDEN, "intermediate_dim": 24}
TEXT = COMMON | {"num_heads": 4}
SHORT = TEXT | {"max_sequence_length": 2 * LENGTH}
GROUPED = COMMON | {"num_query_heads": 4, "num_key_value_heads": 2}
WINDOW = {"use_sliding_window_attention": True, "sliding_window_size": 4}
POST_NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}
IMAGE = {"image_shape": (PIXELS, PIXELS, 3)}
PATCHES = IMAGE | {"patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": HIDDEN}
VISION = PATCHES | {"intermediate_dim": 24}

# name -> function of the module keras_hub.models.
BUILDERS: dict[str, Callable[[Any], Any]] = {
    "Albert": lambda m: m.AlbertBackbone(**SHORT, embedding_dim=8),
    "Bart": lambda m: m.BartBackbone(**SHORT),
    "Bert": lambda m: m.BertBackbone(**SHORT),
    "Bloom": lambda m: m.BloomBackbone(**TEXT),
    "CLIPVision": lambda m: m.CLIPVisionEncoder(**VISION),
    "DebertaV3": lambda m: m.DebertaV3Backbone(**SHORT, bucket_size=4),
    "DeiT": lambda m: m.DeiTBackbone(**VISION),
    "DenseNet": lambda m: m.DenseNetBackbone(**IMAGE, stackwise_num_repeats=[2, 2], growth_rate=4),
    "DINOV2": lambda m: m.DINOV2Backbone(**VISION, position_embedding_shape=(PIXELS, PIXELS)),
    "DistilBert": lambda m: m.DistilBertBackbone(**SHORT),
    "EfficientNet": lambda m: m.EfficientNetBackbone(
        input_shape=(PIXELS, PIXELS, 3),
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[2, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        num_features=16,
    ),
    "Electra": lambda m: m.ElectraBackbone(**_renamed(SHORT, vocabulary_size="vocab_size"), embedding_dim=8),
    "Falcon": lambda m: m.FalconBackbone(**COMMON, num_attention_heads=4),
    "FNet": lambda m: m.FNetBackbone(**COMMON, max_sequence_length=2 * LENGTH),
    "Gemma": lambda m: m.GemmaBackbone(**GROUPED, head_dim=4),
    "Gemma2": lambda m: m.GemmaBackbone(
        **GROUPED, **WINDOW, **POST_NORMS, head_dim=4, attention_logit_soft_cap=5.0, final_logit_soft_cap=3.0
    ),
    "Gemma3": lambda m: m.Gemma3Backbone(**GROUPED, **WINDOW, **POST_NORMS, head_dim=4, image_size=PIXELS),
    "GPT2": lambda m: m.GPT2Backbone(**SHORT),
    "GPTNeoX": lambda m: m.GPTNeoXBackbone(**SHORT, rotary_percentage=0.5),
    "Llama": lambda m: m.LlamaBackbone(**GROUPED),
    "Llama3": lambda m: m.Llama3Backbone(**GROUPED),
    "Mistral": lambda m: m.MistralBackbone(**GROUPED, sliding_window=4),
    "MiT": lambda m: m.MiTBackbone(
        **IMAGE,
        layerwise_depths=(1, 1),
        num_layers=2,
        layerwise_num_heads=(1, 2),
        layerwise_sr_ratios=(2, 1),
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=(7, 3),
        layerwise_strides=(4, 2),
        hidden_dims=(8, 16),
    ),
    "Mixtral": lambda m: m.MixtralBackbone(**GROUPED, num_experts=4, sliding_window=4),
    "OPT": lambda m: m.OPTBackbone(**SHORT),
    "Phi3": lambda m: m.Phi3Backbone(**GROUPED),
    "Qwen": lambda m: m.QwenBackbone(**GROUPED),
    "Qwen3": lambda m: m.Qwen3Backbone(**GROUPED, head_dim=4),
    "ResNet": lambda m: _resnet(m, filters=8, block_type="bottleneck_block"),
    "ResNetV2": lambda m: _resnet(m, filters=64, block_type="basic_block", use_pre_activation=True),
    "Roberta": lambda m: m.RobertaBackbone(**SHORT),
    "Swin": lambda m: m.SwinTransformerBackbone(
        **IMAGE, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4
    ),
    "T5": lambda m: m.T5Backbone(**TEXT),
    "VGG": lambda m: m.VGGBackbone(**IMAGE, stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16]),
    "ViT": lambda m: m.ViTBackbone(**PATCHES, mlp_dim=24),
    "Whisper": lambda m: m.WhisperBackbone(
        **TEXT, num_mels=8, max_encoder_sequence_length=2 * LENGTH, max_decoder_sequence_length=2 * LENGTH
    ),
    # Tasks: a backbone with a head.
    "BertMaskedLM": lambda m: m.BertMaskedLM(BUILDERS["Bert"](m)),
    "BertTextClassifier": lambda m: m.BertTextClassifier(BUILDERS["Bert"](m), num_classes=3),
    "GPT2CausalLM": lambda m: m.GPT2CausalLM(BUILDERS["GPT2"](m)),
    "LlamaCausalLM": lambda m: m.LlamaCausalLM(BUILDERS["Llama"](m)),
    "ViTImageClassifier": lambda m: m.ViTImageClassifier(BUILDERS["ViT"](m), num_classes=5),
}  # fmt: skip


def installed() -> bool:
    """Whether KerasHub is there."""
    return importlib.util.find_spec("keras_hub") is not None


def names() -> list[str]:
    """All architectures of this file, in alphabetical order."""
    return sorted(BUILDERS)


def build(name: str, dtype: str = "float64", seed: int = 0, shifts: bool = True) -> Any:
    """Build an architecture with random weights.

    Args:
        name: one of :func:`names`.
        dtype: "float32" or "float64".
        seed: of the weights.
        shifts: False: what is added to a signal (biases, the betas of norms, position embeddings) is 0, and batch
            statistics have mean 0. Relevance has nowhere to go then but to the input.
    """
    from keras_hub import models

    keras.utils.set_random_seed(seed)
    with architectures.default_dtype(dtype):
        model = BUILDERS[name](models)
    random = np.random.default_rng(seed)
    for variable in model.variables:
        value = _weight(variable, shifts, random)
        if value is not None:
            variable.assign(value)
    return model


def sample(model: Any, count: int, seed: int = 0) -> Any:
    """Random inputs as the model takes them: images, spectra, token ids that end in padding in all samples but one."""
    random = np.random.default_rng(seed)
    return tree.map_structure(lambda tensor: _input(tensor, count, random), model.input)


def strongest(outputs: Any) -> Any:
    """The highest value of the last output at its third position, or pixel, where every sample has one."""
    y = tree.flatten(outputs)[-1]
    while len(y.shape) > 2:
        y = y[:, 2]
    return ops.max(y, axis=-1)


def _input(tensor: Any, count: int, random: np.random.Generator) -> np.ndarray:
    shape = (count, *(size or LENGTH for size in tensor.shape[1:]))
    if "padding_mask" in tensor.name:
        array = np.arange(shape[1]) < shape[1] - 2 * np.arange(count)[:, None] % shape[1]
    elif tensor.name == "segment_ids":
        array = np.broadcast_to(np.arange(shape[1]) >= shape[1] // 2, shape)
    elif tensor.name == "mask_positions":
        array = random.integers(0, shape[1], shape)
    elif "int" in tensor.dtype:
        array = random.integers(1, WORDS, shape)
    else:
        array = random.uniform(-1, 1, shape)
    return array.astype(tensor.dtype)


def _weight(variable: Any, shifts: bool, random: np.random.Generator) -> np.ndarray | None:
    """A value for one weight; None: as it is."""
    shape, name, value = variable.shape, variable.name, np.asarray(variable)
    if "int" in variable.dtype or name == "moving_variance":
        return None
    if name in ("gamma", "scale", "lambda1"):
        return value + random.normal(0, 0.2, shape)
    if name in ("beta", "moving_mean") or ("bias" in name and "relative" not in name):
        return random.normal(0, 0.1, shape) * shifts
    if name in _TOKENS or any("position_embedding" in part for part in variable.path.split("/")[-2:]):
        return random.normal(0, 0.3, shape) * shifts
    return random.normal(0, 2 * np.prod(shape[:-1]) ** -0.5, shape) if np.std(value) < 0.05 else None


_TOKENS = ("class_token", "cls_token", "mask_token", "distillation_token", "class_embedding")


def _renamed(options: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in options.items()}


def _resnet(models: Any, filters: int, **options: Any) -> Any:
    return models.ResNetBackbone(
        **IMAGE,
        input_conv_filters=[filters],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        **options,
    )
