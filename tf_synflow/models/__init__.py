"""The networks of the papers, as functional Keras models that return logits.

`VGG16(input_shape=(32, 32, 3), classes=10)`, `ResNet20(...)` and so on are named as in
`keras.applications`; `build("vgg16_bn", input_shape, classes)` takes the name of a
network. All these functions take `keras="tf_keras"` or `keras="keras"`, which says
whether Keras 2 or Keras 3 builds the network.
"""

import functools
from collections.abc import Callable
from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.models.mobilenet import mobilenet
from tf_synflow.models.resnet import DEPTHS, resnet
from tf_synflow.models.small_cnn import small_cnn
from tf_synflow.models.vgg import vgg
from tf_synflow.models.vgg_dropout import vgg16_dropout
from tf_synflow.models.vgg_framework import vgg13_framework
from tf_synflow.models.wide_resnet import wide_resnet

VGG11 = functools.partial(vgg, 11)
VGG13 = functools.partial(vgg, 13)
VGG16 = functools.partial(vgg, 16)
VGG19 = functools.partial(vgg, 19)
MobileNet = mobilenet
ResNet18 = functools.partial(resnet, 18)
ResNet34 = functools.partial(resnet, 34)
ResNet50 = functools.partial(resnet, 50)
ResNet101 = functools.partial(resnet, 101)
ResNet152 = functools.partial(resnet, 152)
ResNet20 = functools.partial(resnet, 20)
ResNet32 = functools.partial(resnet, 32)
ResNet44 = functools.partial(resnet, 44)
ResNet56 = functools.partial(resnet, 56)
ResNet110 = functools.partial(resnet, 110)
ResNet1202 = functools.partial(resnet, 1202)
# Twice as wide in every layer. (The WideResNet-18 of the SynFlow paper's curves is in
# fact ResNet-18: the authors' program ignores the width.)
WideResNet18 = functools.partial(resnet, 18, width=2)
WideResNet20 = functools.partial(resnet, 20, width=2)
# The networks of gRDA's paper.
VGG16Dropout = vgg16_dropout
WideResNet28_10 = functools.partial(wide_resnet, 28, 10)

MODELS: dict[str, Callable[..., Any]] = {
    **{
        f"vgg{depth}": functools.partial(vgg, depth, batch_norm=False)
        for depth in (11, 13, 16, 19)
    },
    **{f"vgg{depth}_bn": functools.partial(vgg, depth) for depth in (11, 13, 16, 19)},
    "vgg13_bn_last": functools.partial(vgg, 13, batch_norm="last"),
    "vgg13_framework": vgg13_framework,
    # A quarter and an eighth as wide, for experiments on CPUs.
    "vgg13_framework_quarter": functools.partial(
        vgg13_framework, width=1 / 4, name="vgg13_framework_quarter"
    ),
    "vgg13_framework_eighth": functools.partial(
        vgg13_framework, width=1 / 8, name="vgg13_framework_eighth"
    ),
    "mobilenet": mobilenet,
    **{f"resnet{depth}": functools.partial(resnet, depth) for depth in DEPTHS},
    **{
        f"wide_resnet{depth}": functools.partial(resnet, depth, width=2)
        for depth in DEPTHS
    },
    "vgg16_dropout": vgg16_dropout,
    "vgg16_dropout_quarter": functools.partial(
        vgg16_dropout, width=1 / 4, name="vgg16_dropout_quarter"
    ),
    "wide_resnet28_10": functools.partial(wide_resnet, 28, 10),
    "small_cnn": small_cnn,
}


def build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    variant: str | None = None,
    keras: str = "tf_keras",
) -> Any:
    """Builds a network by its name.

    Args:
      name: "vgg11" ... "vgg19", "vgg11_bn" ... "vgg19_bn", "resnet18" ... "resnet152",
        "resnet8" ... "resnet1202", "wide_resnet18" and the like (twice as wide),
        "vgg13_bn_last" ("vgg13_bn" with BatchNormalization after ReLU),
        "vgg13_framework" (as arXiv 2009.11839 trains it; "vgg13_framework_quarter" and
        "..._eighth" are narrower), "vgg16_dropout" and "wide_resnet28_10" (as arXiv
        2006.09358 trains them; "vgg16_dropout_quarter" is a quarter as wide),
        "mobilenet" or "small_cnn".
      input_shape: `(height, width, channels)`.
      classes: Number of logits.
      variant: "cifar", "tiny" or "imagenet". Defaults to the variant for the image
        size.
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Layers have the same names in both, and weights have the same shapes.
        Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: There is no model, variant or Keras of that name.
    """
    check_choice("model", name, MODELS)
    make = MODELS[name]
    return make(input_shape=input_shape, classes=classes, variant=variant, keras=keras)
