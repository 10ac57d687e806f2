"""PruningPolicy: which weights may be pruned, their scores, and the number of steps."""

import dataclasses
import math
import sys
import weakref
from collections.abc import Collection
from typing import Any

from tf_synflow import frameworks
from tf_synflow.checks import check_choice, check_count
from tf_synflow.criteria import CRITERIA, DATA_FREE, DEFAULT_ITERATIONS, CustomCriterion
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.counts import SCHEDULES, SCOPES
from tf_synflow.masks.types import Masks, Scores
from tf_synflow.network import Network
from tf_synflow.policy.by_filter import FilterTask
from tf_synflow.policy.by_weight import WeightTask
from tf_synflow.policy.collapse import ACTIONS
from tf_synflow.policy.filters import FORMS
from tf_synflow.policy.progress import progress_bar
from tf_synflow.policy.prunable import excluded_layers, prunable_values


@dataclasses.dataclass(frozen=True)
class PruningPolicy:
    """Says which weights may be pruned, how they are scored, and in how many steps.

    A policy is a tfmot policy too: `prune_low_magnitude(model, pruning_policy=policy)`
    wraps the layers that the policy prunes, and
    `isinstance(policy, tfmot.sparsity.keras.PruningPolicy)` is true. All arguments
    after the first must be given by name. No argument can be changed later.

    Args:
      criterion: "synflow", "magnitude" or "random", which need no data; "snip",
        "grasp", "loss_preservation", "small_magnitude_loss_preservation" or
        "gradient_norm_preservation", which need data; or a function
        `(model, data) -> {weight name: scores}`. The function gets a copy of the model
        in which pruned weights are 0. The weights with the lowest scores are removed.
        Defaults to "synflow".
      iterations: How often to score and remove, at least 1. Defaults to the
        criterion's own: 100 for SynFlow, 1 for the others.
      schedule: How the density falls over the iterations, "exponential" or
        "linear". Defaults to "exponential".
      scope: "global" ranks all weights together, "local" prunes each weight tensor
        to the ratio by itself. Defaults to "global".
      exclude: Names of layers to leave alone, nested ones by their path
        ("block1/conv1"); names of nested models ("base"), for all layers in them;
        and patterns ("base/*", "*_conv1") with `*`, `?` and `[...]`, where `*` stands
        for "/" too. The weights of these layers are neither pruned nor counted. SynFlow
        treats an excluded layer that it has no rule for as the identity, if the layer's
        one output has the shape of its one input. Defaults to none.
      layer_types: Layer classes whose weights may be pruned. Defaults to all with
        kernels that can be pruned: Dense, EinsumDense, convolutions, attention,
        Embedding, recurrent layers, and layers with a `get_prunable_weights` of their
        own; docs/layers.md has the list. Depthwise kernels and Conv1DTranspose are
        pruned only if their layer classes are named here.
      seed: Seeds the criterion "random". Defaults to 0.
      dtype: The type in which SynFlow and the criteria that need data compute, whatever
        the model's own dtype. "float64" is exact enough that independent programs agree
        in every bit. "float32" takes half the memory and less time; its masks differ
        because 100 rounds of ranking amplify rounding. Defaults to "float64".
      loss: The loss that the criteria that need data differentiate: a Keras loss, its
        name, or a function `(labels, outputs) -> losses`. With several outputs, one
        loss for all outputs, or a list or a dictionary by name of the output. In a list
        or dictionary, None leaves an output out. Penalties of regularisers are not part
        of the loss. Defaults to the losses and `loss_weights` that the model is
        compiled with. If the model is not compiled, defaults to the cross-entropy that
        fits output and labels.
      training: Whether BatchNormalization normalises by the batch while gradients are
        computed. The way in which data is cut into batches then matters. Other layers,
        dropout too, work as in inference either way. Defaults to False.
      temperature: T > 0, which divides the logits. Defaults to the criterion's own: 200
        for "grasp", 5 for the two kinds of loss preservation, otherwise 1.
      invert: An ablation: the scores are negated, so that the highest are removed.
        Defaults to False.
      on_collapse: What to do when pruning leaves nothing of a layer: "warn" (a
        `LayerCollapseWarning` that says whether input and output are still
        connected), "raise" a `LayerCollapseError`, or "ignore". In ResNets SynFlow
        empties 1x1 shortcuts at high ratios, which does no harm. Defaults to "warn".
      progress: Shows a progress bar when scoring takes more than a second. Defaults
        to True.
      granularity: What is removed. "weight" removes each weight by itself. "filter"
        removes whole filters: a filter is an output channel of a convolution or a unit
        of a Dense layer, together with every weight that carries or reads its channel.
        The criteria for filters are "magnitude" (a filter's 2-norm), the two kinds of
        loss preservation (the sum of the scores of a filter's weights),
        "gradient_norm_preservation" (the absolute value of the sum of w (H g)), "grasp"
        (the sum of w (H g)) and "random". H and g are then the derivatives by all
        trainable variables, not by the prunable weights alone. A ratio then counts
        filters. No layer loses more than 95 % of its filters. The filters of the
        outputs stay. So do filters whose channels are combined with the channels of
        other layers (Add, Multiply ...) or read by a strided 1x1 convolution. Defaults
        to "weight".
      ratio_of: Which weights a ratio counts: "prunable" for the prunable weights, "all"
        for the weights of all kernels. With "all", more of the prunable weights are
        removed, to make up for kernels that stay dense (excluded kernels too). Defaults
        to "prunable".
      attention: How SynFlow treats queries and keys. "share": the flow is that of
        attention to all tokens alike, and a query or key weight is scored by its share
        in the product of its head's queries and keys. "product": the flow of a head is
        multiplied by this product, which keeps query and key weights in every layer,
        but few heads. Defaults to "share".

    Raises:
      TypeError: `iterations` is no whole number, or `exclude` is a string.
      ValueError: A name is unknown, `iterations` is below 1, `temperature` is not
        above 0, or the criterion cannot score filters.
    """

    criterion: str | CustomCriterion = "synflow"
    _: dataclasses.KW_ONLY
    iterations: int | None = None
    schedule: str = "exponential"
    scope: str = "global"
    exclude: Collection[str] = ()
    layer_types: Collection[type] | None = None
    seed: int = 0
    dtype: str = "float64"
    loss: Any = None
    training: bool = False
    temperature: float | None = None
    invert: bool = False
    on_collapse: str = "warn"
    progress: bool = True
    granularity: str = "weight"
    ratio_of: str = "prunable"
    attention: str = "share"

    def __post_init__(self) -> None:
        """Refuses values that are out of range, and fills in default iterations."""
        if not callable(self.criterion):
            check_choice("criterion", self.criterion, CRITERIA)
        check_choice("granularity", self.granularity, ("weight", "filter"))
        check_choice("attention", self.attention, ("share", "product"))
        check_choice("ratio_of", self.ratio_of, ("prunable", "all"))
        if self.granularity == "filter" and self.ratio_of == "all":
            raise ValueError(
                'ratio_of="all" counts weights; with granularity="filter" a ratio '
                "counts filters"
            )
        if self.granularity == "filter" and self.criterion not in FORMS:
            raise ValueError(
                f"the criterion {self.criterion!r} has no form for filters; those that "
                f"have one are {', '.join(FORMS)}"
            )
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("scope", self.scope, SCOPES)
        check_choice("dtype", self.dtype, ("float64", "float32"))
        check_choice("on_collapse", self.on_collapse, ACTIONS)
        if self.iterations is not None:
            check_count("iterations", self.iterations)
        if isinstance(self.exclude, str):
            raise TypeError(
                f"exclude must be a list of layer names, got the string "
                f"{self.exclude!r}; write exclude=[{self.exclude!r}]"
            )
        for kind in self.layer_types or ():
            if not isinstance(kind, type):
                raise TypeError(f"layer_types must be layer classes, got {kind!r}")
        temperature = self.temperature
        if temperature is not None and (
            isinstance(temperature, (bool, str)) or not 0 < temperature < math.inf
        ):
            raise ValueError(f"temperature must be above 0, got {temperature!r}")
        usual = DEFAULT_ITERATIONS.get(self.criterion_name, 1)
        own = usual if self.iterations is None else int(self.iterations)
        types = None if self.layer_types is None else tuple(self.layer_types)
        for name, value in (
            ("iterations", own),
            ("exclude", tuple(self.exclude)),
            ("layer_types", types),
        ):
            object.__setattr__(self, name, value)

    @property
    def __class__(self) -> type:
        """The class; if tfmot is imported, this makes the class known to tfmot first.

        `isinstance(policy, tfmot.sparsity.keras.PruningPolicy)` reads this property. A
        subclass of tfmot's class would have to import tfmot, and with it Keras 2, for
        every user.
        """
        if (tfmot := sys.modules.get("tensorflow_model_optimization")) is not None:
            tfmot.sparsity.keras.PruningPolicy.register(PruningPolicy)
        return PruningPolicy

    @property
    def criterion_name(self) -> str | None:
        """The criterion's name; None for a function of the user's own."""
        return self.criterion if isinstance(self.criterion, str) else None

    def score(self, model: Any, data: Any = None) -> Scores:
        """Scores every prunable weight of a model, once.

        A pruned model is scored under its masks.

        Args:
          model: A built Sequential or functional Keras model. It is not changed.
          data: For criteria that need data: `(x, y)` or `(x, y, sample_weight)`, arrays
            of equal length, or a `tf.data.Dataset` or `keras.utils.Sequence` of such
            batches. With several outputs, y is a list in the order of the outputs or a
            dictionary by their names. sample_weight is one array for all outputs, or a
            list or dictionary like y. All data is used, and the way in which it is cut
            into batches does not matter (but see `training`). A Dataset or Sequence is
            read once for the gradient and again for Hessian-vector products. With
            random augmentation the two passes would see different images. Defaults to
            None.

        Returns:
          Name ("conv1/kernel") to float64 array of the weight's shape, in the order in
          which the model applies its layers. For "synflow" the scores are
          S = dR/d|w| * |w| if float64 can hold all of them. In deeper networks the
          scores are S times one power of two, so the ratios between the scores are
          those of S. The dictionary's attribute `log2_scale` says which power of two:
          S = score * 2**log2_scale. `log2_scale` is 0 if the scores are S itself. The
          scores of criteria that need data are divided by the absolute value of their
          total. For filters, the result maps the name of each kernel whose filters may
          be pruned to a vector with a score for each filter.

        Raises:
          TypeError: `model` is no Keras model, or `data` is of no known kind.
          ValueError: `model` is subclassed or not built, nothing in it can be pruned, a
            weight is not finite, or SynFlow has no rule for a layer; data is needed but
            missing, empty, or does not fit the model; the loss is NaN or infinite; or a
            criterion function returns wrong names, shapes or values.
        """
        return self.prepare(model, data).score()

    def masks(self, model: Any, ratio: float, data: Any = None) -> Masks:
        """Finds the weights to keep.

        Args:
          model: A built Sequential or functional Keras model. It is not changed. If the
            model is pruned, the result begins from its masks: pruned weights stay
            pruned.
          ratio: `>= 1`: the compression ratio rho, prunable weights over kept weights.
            `0 <= ratio < 1`: the fraction of the prunable weights to remove. Of N
            prunable weights (of each weight tensor, if the scope is "local") exactly
            `N - floor((1 - 1/rho) N)` are kept. The same holds for filters.
          data: See `score`.

        Returns:
          Name to boolean array of the weight's shape, True where the weight is kept.

        Raises:
          TypeError: `model` is no Keras model or `ratio` no number.
          ValueError: As for `score`; or `ratio` is NaN, infinite, negative, too high to
            leave a weight for each tensor, or lower than the ratio that the model has
            already.
          LayerCollapseError: Nothing is left of a layer, and `on_collapse` is "raise".
        """
        return self.prepare(model, data).masks(ratio)

    def prepare(self, model: Any, data: Any = None) -> WeightTask | FilterTask:
        """Reads a model once, to score it, to mask it, and to check ratios.

        Args:
          model: A built Sequential or functional Keras model. It is not changed.
          data: See `score`.

        Returns:
          A task. `task.check(ratio)` raises the errors that `task.masks(ratio)` raises
          before it computes scores. `task.score()` and `task.masks(ratio)` do the same
          as here.

        Raises:
          TypeError: `model` is no Keras model.
          ValueError: `model` is subclassed or not built, nothing in it can be pruned,
            or a weight is not finite.
        """
        return self.task(frameworks.read(model), data)

    def task(self, network: Network, data: Any = None) -> WeightTask | FilterTask:
        """The task that `prepare` returns, for a network that was read already."""
        kind = FilterTask if self.granularity == "filter" else WeightTask
        return kind(self.problem(network, data), self)

    def problem(self, network: Network, data: Any = None) -> Problem:
        """The `Problem` for a criterion, from a network that was read already."""
        excluded = excluded_layers(network, self.exclude)
        return Problem(
            network=network,
            weights=prunable_values(network, excluded, self.layer_types),
            exclude=excluded,
            data=data,
            seed=self.seed,
            dtype=self.dtype,
            loss=self.loss,
            training=self.training,
            temperature=self.temperature,
            whole_hessian=self.granularity == "filter",
            attention=self.attention,
            progress=progress_bar("gradients", "batch", self.progress, leave=False),
        )

    def allow_pruning(self, layer: Any) -> bool:
        """Whether tfmot may wrap this layer (part of tfmot's interface)."""
        if self.layer_types is not None and type(layer) not in self.layer_types:
            return False
        seen = vars(self).get("_excluded", {})
        ends = ("/" + name for name in self.exclude)
        excluded = seen.get(layer, any(e.endswith("/" + layer.name) for e in ends))
        return not excluded and bool(frameworks.adapter_of(layer).wrappable(layer))

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Raises what is wrong with a model (part of tfmot's interface).

        These are the errors of `score`; for criteria that need data, those that can be
        found without data.
        """
        task = self.prepare(model)
        if self.criterion_name in DATA_FREE:
            task.prepare_scores()
        # Next, tfmot asks about single layers, and a layer does not know its path.
        seen = weakref.WeakKeyDictionary(
            {
                call.layer: path in task.problem.exclude
                for path, call in task.problem.network.layers().items()
            }
        )
        object.__setattr__(self, "_excluded", seen)
