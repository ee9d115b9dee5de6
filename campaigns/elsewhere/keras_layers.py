"""Keras models through their `export(format="onnx")`, and functions through tf2onnx: FOLDER/keras and FOLDER/tf2onnx. Needs tensorflow-cpu
and tf2onnx.

    python campaigns/elsewhere/keras_layers.py FOLDER
"""

from __future__ import annotations

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", TF_ENABLE_ONEDNN_OPTS="0")

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers


def sequential(*parts: Any, shape: tuple[int | None, ...]) -> Any:
    return keras.Sequential([keras.Input(shape), *parts])


def residual() -> Any:
    x = keras.Input((16, 16, 3))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.Add()([y, layers.Conv2D(8, 3, padding="same")(y)])
    return keras.Model(x, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(z)))


def attention() -> Any:
    x = keras.Input((7, 16))
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(x, layers.Dense(16)(layers.Dense(32, "gelu")(y)) + y)


def unet() -> Any:
    x = keras.Input((16, 16, 3))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    c = layers.Conv2DTranspose(4, 2, strides=2)(b)
    return keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([a, c, layers.UpSampling2D(2)(b)])))


MODELS: dict[str, Callable[[], Any]] = {
    "dense": lambda: sequential(layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(3, "softmax"), shape=(5,)),
    "activations": lambda: sequential(layers.Dense(6, "selu"), layers.Dense(6, "swish"), layers.Dense(6, "softplus"), layers.Dense(6,
    "elu"),
                                      layers.LeakyReLU(), layers.PReLU(), layers.Dense(6, "hard_sigmoid"), layers.Dense(6, "gelu"),
                                      layers.Dense(6, "mish"), shape=(5,)),
    "convolution-same": lambda: sequential(layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"), layers.MaxPooling2D(3, 2,
    "same"),
                                           layers.Flatten(), layers.Dense(3), shape=(17, 17, 3)),
    "convolution-free": lambda: sequential(layers.Conv2D(6, 3, padding="same", dilation_rate=2), layers.GlobalMaxPooling2D(),
    layers.Dense(3),
                                           shape=(None, None, 3)),
    "depthwise": lambda: sequential(layers.DepthwiseConv2D(3, padding="same"), layers.SeparableConv2D(6, 3), layers.AveragePooling2D(2),
                                    layers.Flatten(), shape=(12, 12, 4)),
    "convolution-1d": lambda: sequential(layers.Conv1D(6, 3, padding="causal"), layers.BatchNormalization(),
    layers.GlobalAveragePooling1D(),
                                         shape=(20, 4)),
    "convolution-3d": lambda: sequential(layers.Conv3D(3, 2), layers.MaxPooling3D(), layers.Flatten(), shape=(6, 6, 6, 2)),
    "residual": residual, "attention": attention, "unet": unet,
    "lstm": lambda: sequential(layers.LSTM(8, return_sequences=True), layers.LSTM(6), layers.Dense(2), shape=(9, 4)),
    "gru": lambda: sequential(layers.GRU(8, return_sequences=True), layers.GRU(5, reset_after=False), shape=(9, 4)),
    "bidirectional": lambda: sequential(layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
    layers.TimeDistributed(layers.Dense(2)),
                                        shape=(9, 4)),
    "rnn": lambda: sequential(layers.SimpleRNN(6), shape=(9, 4)),
    "embedding": lambda: sequential(layers.Embedding(30, 8), layers.GlobalAveragePooling1D(), layers.Dense(2), shape=(9,)),
    "norms": lambda: sequential(layers.LayerNormalization(), layers.UnitNormalization(), layers.GroupNormalization(2), shape=(6, 8)),
    "shapes": lambda: sequential(layers.Reshape((4, 6)), layers.Permute((2, 1)), layers.ZeroPadding1D(1), layers.Cropping1D(1),
    layers.UpSampling1D(2), layers.Flatten(), shape=(24,)),
    "mobilenet-v2": lambda: keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=5),
    "efficientnet-b0": lambda: keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=5),
    "densenet": lambda: keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=5),
}

FUNCTIONS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "einsum": (lambda x, y: tf.einsum("bij,bjk->bik", x, y), [tf.TensorSpec((None, 3, 4)), tf.TensorSpec((None, 4, 5))]),
    "resize": (lambda x: tf.image.resize(x, (9, 11)), [tf.TensorSpec((None, 5, 6, 3))]),
    "resize-nearest": (lambda x: tf.image.resize(x, (10, 12), "nearest"), [tf.TensorSpec((None, 5, 6, 3))]),
    "top-k": (lambda x: tf.math.top_k(x, 3), [tf.TensorSpec((None, 9))]),
    "strided": (lambda x: x[:, ::-2, 1:3], [tf.TensorSpec((None, 7, 5))]),
    "cumsum-one-hot": (lambda x: tf.cumsum(tf.one_hot(x, 6), axis=1, exclusive=True), [tf.TensorSpec((None, 4), tf.int32)]),
    "gather-nd": (lambda x: tf.gather_nd(x, [[0, 1], [2, 0]], batch_dims=0), [tf.TensorSpec((3, 4, 5))]),
    "while": (lambda x: tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, a * 0.5 + tf.cast(i, tf.float32)), (tf.constant(0), x))[1],
              [tf.TensorSpec((None, 3))]),
    "cond": (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1), [tf.TensorSpec((None, 3))]),
    "moments": (lambda x: tf.nn.moments(x, [1, 2], keepdims=True), [tf.TensorSpec((None, 4, 5, 2))]),
    "batch-space": (lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 2), [tf.TensorSpec((None, 4, 6, 2))]),
    "spectrum": (lambda x: tf.abs(tf.signal.rfft(x)), [tf.TensorSpec((None, 16))]),
    "sorted": (lambda x: tf.sort(x, axis=-1, direction="DESCENDING"), [tf.TensorSpec((None, 6))]),
    "segment": (lambda x: tf.math.segment_sum(x, [0, 0, 1]), [tf.TensorSpec((3, 4))]),
    "local-response": (lambda x: tf.nn.local_response_normalization(x), [tf.TensorSpec((None, 4, 4, 8))]),
    "matrix": (lambda x: tf.linalg.band_part(tf.linalg.matmul(x, x, transpose_b=True), -1, 0), [tf.TensorSpec((None, 4, 3))]),
}


def spread(model: Any) -> None:
    """No bias or moving average is 0 or 1: what is missing would not show."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        value = weight.numpy()
        if np.issubdtype(value.dtype, np.floating) and value.ndim == 1:
            weight.assign(np.abs(value) + 0.3 * draw.random(value.shape))


def main(folder: Path) -> None:
    for name, make in MODELS.items():
        path = folder / "keras" / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        try:
            keras.utils.set_random_seed(0)
            model = make()
            spread(model)
            model(np.zeros([2, *(size or 16 for size in model.input_shape[1:])], np.float32))  # it exports what was called once
            model.export(str(path), format="onnx", verbose=False)
        except Exception as error:  # a tool's own
            print(f"keras/{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
    for name, (function, signature) in FUNCTIONS.items():
        path = folder / "tf2onnx" / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            tf2onnx.convert.from_function(tf.function(function), signature, opset=18, output_path=str(path))
        except Exception as error:  # a tool's own
            print(f"tf2onnx/{name}: not made: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
