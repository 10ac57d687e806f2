"""PruningPolicy: what may be pruned, how it is scored, in how many steps, over what."""

import itertools
import math
import weakref
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tf_synflow.checks import check_choice, check_count
from tf_synflow.criteria import (
    CRITERIA,
    DATA_FREE,
    DEFAULT_ITERATIONS,
    LOOPS,
    OwnCriterion,
    Problem,
    own,
)
from tf_synflow.keras2.imports import tfmot
from tf_synflow.keras2.reading import flatten, masks_of, prunable_weights
from tf_synflow.masks import counts as masks_lib
from tf_synflow.masks.selection import _inverted, iterate
from tf_synflow.masks.types import Masks, Plan, Scorer, Scores
from tf_synflow.network import Call, Graph
from tf_synflow.policy import filters
from tf_synflow.policy.collapse import ACTIONS, notice

# For each policy: whether it excludes the layers of the model that it saw last.
_EXCLUDED: Any = weakref.WeakKeyDictionary()


class PruningPolicy(tfmot.sparsity.keras.PruningPolicy):
    """Says what may be pruned, how it is scored, in how many steps and over what.

    It is a tfmot policy too: `prune_low_magnitude(model, pruning_policy=policy)` wraps
    the layers that this policy prunes.

    Attributes are the arguments, by name.
    """

    def __init__(
        self,
        criterion: str | OwnCriterion = "synflow",
        iterations: int | None = None,
        schedule: str = "exponential",
        scope: str = "global",
        exclude: Collection[str] = (),
        layer_types: Collection[type] | None = None,
        seed: int = 0,
        dtype: str = "float64",
        loss: Any = None,
        training: bool = False,
        temperature: float | None = None,
        invert: bool = False,
        on_collapse: str = "warn",
        progress: bool = True,
        granularity: str = "weight",
    ):
        """Makes a policy.

        Args:
          criterion: "synflow", "magnitude" or "random"; or, of those that need data,
            "snip", "grasp", "loss_preservation", "small_magnitude_loss_preservation" or
            "gradient_norm_preservation"; or a function `(model, data) -> {weight name:
            scores}`, which gets a copy of the model with pruned weights at 0 and whose
            lowest scores are removed. Defaults to "synflow".
          iterations: How often to score and remove, at least 1. Defaults to the
            criterion's own: 100 for SynFlow, 1 for the others.
          schedule: How the density falls over the iterations, "exponential" or
            "linear". Defaults to "exponential".
          scope: "global" ranks all weights together, "local" prunes each weight tensor
            to the ratio by itself. Defaults to "global".
          exclude: Names of layers to leave alone, nested ones by their path
            ("block1/conv1"); names of nested models ("base"), for all layers in them;
            and patterns ("base/*", "*_conv1") with `*`, `?` and `[...]`, where `*`
            stands for "/" too. Their weights are neither pruned nor counted. SynFlow
            takes one of them that it cannot see through for the identity, if its one
            output has the shape of its one input. Defaults to none.
          layer_types: Layer classes whose weights may be pruned. Defaults to all that
            tfmot can mask: Dense, Conv1D to Conv3D, Conv2DTranspose, Conv3DTranspose,
            the pointwise part of SeparableConv1D and 2D, and layers with a
            `get_prunable_weights` of their own. (Depthwise kernels and Conv1DTranspose
            are not among them; their weights are neither pruned nor counted.)
          seed: Seeds the criterion "random". Defaults to 0.
          dtype: What SynFlow and the criteria that need data compute in, whatever the
            model's own dtype. "float64" is exact enough that independent programs agree
            in every bit; "float32" takes half the memory and less time, and its masks
            differ, for a hundred rankings amplify rounding. Defaults to "float64".
          loss: What the criteria that need data differentiate: a Keras loss, its name,
            or a function `(labels, outputs) -> losses`. With several outputs, one for
            all of them, or a list or a dictionary by name of the output; None leaves an
            output out. Penalties of regularisers are not part of it. Defaults to the
            losses and `loss_weights` that the model is compiled with; and if it is not,
            to the cross-entropy that fits output and labels.
          training: Whether BatchNormalization normalises by the batch while gradients
            are taken (how data is cut then matters). All else, dropout too, is as in
            inference either way.
            Defaults to False.
          temperature: T > 0, divides the logits. Defaults to the criterion's own: 200
            for "grasp", 5 for the two kinds of loss preservation, otherwise 1.
          invert: An ablation: the scores are negated, so that the highest are removed.
            Defaults to False.
          on_collapse: What to do when pruning leaves nothing of a layer: "warn" (a
            `LayerCollapseWarning` that says whether input and output are still
            connected), "raise" a `LayerCollapseError`, or "ignore". In ResNets SynFlow
            empties 1x1 shortcuts at high ratios, which does no harm. Defaults to
            "warn".
          progress: Shows a progress bar when scoring takes more than a second.
            Defaults to True.
          granularity: What is removed: each "weight" by itself, or a whole "filter", an
            output channel of a convolution or a unit of a Dense layer, with all that
            passes its channel on and reads it. For "magnitude" (a filter's 2-norm),
            "loss_preservation" (the sum of its scores), "gradient_norm_preservation"
            (the absolute value of the sum of w (H g)), "grasp" (that sum) and "random".
            A ratio then counts filters. No layer loses more than 95 % of its own; those
            of the outputs stay, and those whose channels are combined with the channels
            of other layers (Add, Multiply ...) or read by a strided 1x1 convolution.
            Defaults to "weight".

        Raises:
          TypeError: `iterations` is no whole number, or `exclude` is a string.
          ValueError: A name is unknown, `iterations` is below 1, `temperature` is not
            above 0, or the criterion cannot score filters.
        """
        if not callable(criterion):
            check_choice("criterion", criterion, CRITERIA)
        check_choice("granularity", granularity, ("weight", "filter"))
        if granularity == "filter" and criterion not in filters.FORMS:
            raise ValueError(
                f"the criterion {criterion!r} has no form for filters; those that have "
                f"one are {', '.join(filters.FORMS)}"
            )
        check_choice("schedule", schedule, masks_lib.SCHEDULES)
        check_choice("scope", scope, masks_lib.SCOPES)
        if iterations is None:
            named = isinstance(criterion, str)
            iterations = DEFAULT_ITERATIONS.get(criterion, 1) if named else 1
        check_count("iterations", iterations)
        if isinstance(exclude, str):
            raise TypeError(
                f"exclude must be a list of layer names, got the string {exclude!r}; "
                f"write exclude=[{exclude!r}]"
            )
        for kind in layer_types or ():
            if not isinstance(kind, type):
                raise TypeError(f"layer_types must be layer classes, got {kind!r}")
        check_choice("dtype", dtype, ("float64", "float32"))
        check_choice("on_collapse", on_collapse, ACTIONS)
        if temperature is not None:
            if isinstance(temperature, (bool, str)) or not 0 < temperature < math.inf:
                raise ValueError(f"temperature must be above 0, got {temperature!r}")
        self.criterion = criterion
        self.iterations = int(iterations)
        self.schedule = schedule
        self.scope = scope
        self.exclude = tuple(exclude)
        self.layer_types = None if layer_types is None else tuple(layer_types)
        self.seed = seed
        self.dtype = dtype
        self.loss = loss
        self.training = training
        self.temperature = temperature
        self.invert = invert
        self.on_collapse = on_collapse
        self.progress = progress
        self.granularity = granularity

    def __repr__(self) -> str:
        """The policy as the call that makes it."""
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"PruningPolicy({fields})"

    def score(self, model: Any, data: Any = None) -> Scores:
        """Scores every prunable weight of a model, once.

        A pruned model is scored under its masks.

        Args:
          model: A built Sequential or functional tf_keras model. It is not changed.
          data: For criteria that need it: `(x, y)` or `(x, y, sample_weight)`, arrays
            of equal length, or a `tf.data.Dataset` or `keras.utils.Sequence` of such
            batches. With several outputs, y is a list in their order or a dictionary by
            their names, and sample_weight is one array for all, or likewise. All of it
            is used, and how it is cut into batches does not matter (but see
            `training`). A Dataset or Sequence is gone through once for the gradient and
            once more for Hessian-vector products: with random augmentation the two
            passes would see different images. Defaults to None.

        Returns:
          Name ("conv1/kernel") to float64 array of the weight's shape, in the order in
          which the model applies its layers. For "synflow" they are S = dR/d|w| * |w|
          wherever float64 can hold them all. In deeper networks they are S times one
          power of two, and the ratios between them are those of S; the dictionary's
          attribute `log2_scale` (0 otherwise) says which: S = score * 2**log2_scale.
          The scores of criteria that need data are divided by the absolute value of
          their total. Of filters: name of a kernel whose filters may be pruned to a
          vector, a score for each.

        Raises:
          TypeError: `model` is no tf_keras model, or `data` is of no known kind.
          ValueError: It is subclassed or not built, nothing in it can be pruned, a
            weight is not finite, or SynFlow cannot see through a layer; data is needed
            and not there, empty, or does not fit the model; the loss is NaN or
            infinite; or a criterion function returns wrong names, shapes or values.
        """
        problem, masks = self.problem(model, data)
        if self.granularity == "filter":
            found = filters.Filters(problem)
            return self._filter_scorer(found, problem, masks)(found.standing(masks))
        return self._scorer(problem)(masks)

    def masks(self, model: Any, ratio: float, data: Any = None) -> Masks:
        """Finds the weights to keep.

        Args:
          model: A built Sequential or functional tf_keras model. It is not changed. A
            pruned model goes on from its masks: what is pruned stays pruned.
          ratio: `>= 1`: the compression ratio rho, prunable weights over kept ones.
            `0 <= ratio < 1`: the fraction of the prunable weights removed. Of N
            prunable weights (of each weight tensor, if the scope is "local") exactly
            `N - floor((1 - 1/rho) N)` are kept; of filters likewise.
          data: See `score`.

        Returns:
          Name to boolean array of the weight's shape, True where it is kept.

        Raises:
          TypeError: `model` is no tf_keras model or `ratio` no number.
          ValueError: As for `score`; or `ratio` is NaN, infinite, negative, more than
            leaves a weight for each tensor, or less than the model has already.
          LayerCollapseError: Nothing is left of a layer, and `on_collapse` is "raise".
        """
        removed = masks_lib.pruned_fraction(ratio)
        problem, masks = self.problem(model, data)
        if self.granularity == "filter":
            return self._filter_masks(problem, masks, ratio)
        masks_lib.check_reach(masks, ratio, self.scope)
        if removed == 0:
            return masks
        steps = masks_lib.plan(masks, ratio, self.iterations, self.schedule, self.scope)
        new = self._pruned(problem, masks, steps)
        notice(problem, masks, new, self.on_collapse, self._advice())
        return new

    def check(self, model: Any, ratio: float, data: Any = None) -> Masks:
        """Raises what `masks` would raise before it scores; gives the masks now."""
        masks_lib.pruned_fraction(ratio)
        problem, masks = self.problem(model, data)
        if self.granularity == "filter":
            found = filters.Filters(problem)
            self._filter_plan(found, masks, ratio)
            self._filter_scorer(found, problem, masks)
            return masks
        masks_lib.check_reach(masks, ratio, self.scope)
        self._scorer(problem)
        return masks

    def allow_pruning(self, layer: Any) -> bool:
        """Whether tfmot may wrap this layer (part of tfmot's interface)."""
        seen = _EXCLUDED.get(self, {})
        excluded = (
            seen[layer]
            if layer in seen
            else any(
                name == layer.name or name.endswith("/" + layer.name)
                for name in self.exclude
            )
        )
        return not excluded and bool(self._prunable(layer))

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Raises what `score` would of a model (part of tfmot's interface)."""
        problem, _ = self.problem(model, None)
        if self._name in DATA_FREE:
            self._scorer(problem)
        # tfmot asks about single layers next, which do not know their path.
        _EXCLUDED[self] = weakref.WeakKeyDictionary(
            {call.layer: call.name in problem.exclude for call in problem.graph.calls}
        )

    @property
    def _name(self) -> str | None:
        """The criterion's name; None for a function of the user's own."""
        return self.criterion if isinstance(self.criterion, str) else None

    def _advice(self) -> str:
        """What to do where pruning has cut the network."""
        own = DEFAULT_ITERATIONS["synflow"]
        if self._name != "synflow" or self.invert:
            without = " without invert" if self.invert else ""
            return (
                f'take a lower ratio, or criterion="synflow"{without}, which keeps a '
                "path"
            )
        if self.iterations < own:
            return f"take a lower ratio, or more iterations (SynFlow's own are {own})"
        other = ', or scope="global"' if self.scope == "local" else ""
        return f"take a lower ratio{other}"

    def _pruned(self, problem: Problem, masks: Masks, steps: Plan) -> Masks:
        if self._name in LOOPS and not self.invert:
            return LOOPS[self._name](problem, masks, steps, self._progress_bar)
        scorer = self._scorer(problem)
        return iterate(scorer, masks, steps, self._progress_bar)

    def _filter_masks(self, problem: Problem, masks: Masks, ratio: float) -> Masks:
        found = filters.Filters(problem)
        steps, fewest = self._filter_plan(found, masks, ratio)
        return self.remove_filters(found, problem, masks, steps, fewest)

    def remove_filters(
        self,
        found: filters.Filters,
        problem: Problem,
        masks: Masks,
        steps: Plan,
        fewest: Mapping[str, int],
    ) -> Masks:
        """The masks of the weights once a plan for filters is done."""
        scorer = filters.never_less(self._filter_scorer(found, problem, masks), fewest)
        left = iterate(scorer, found.standing(masks), steps, self._progress_bar)
        return found.weight_masks(left, masks)

    def _filter_plan(
        self, found: filters.Filters, masks: Masks, ratio: float
    ) -> tuple[Plan, dict[str, int]]:
        standing, fewest = found.standing(masks), filters.least(found.sizes)
        steps = masks_lib.plan(
            standing, ratio, self.iterations, self.schedule, self.scope
        )
        filters.check_reach(steps, standing, fewest)
        return steps, fewest

    def _filter_scorer(
        self, found: filters.Filters, problem: Problem, masks: Masks
    ) -> Scorer:
        scorer = found.scorer(problem, self._name, masks)
        return _inverted(scorer) if self.invert else scorer

    def _scorer(self, problem: Problem) -> Scorer:
        """What gives the scores under masks."""
        criterion = CRITERIA[self._name] if self._name else own(self.criterion)
        scorer = criterion(problem)
        return _inverted(scorer) if self.invert else scorer

    def problem(self, model: Any, data: Any) -> tuple[Problem, Masks]:
        """The weights to score, and the masks that they have now."""
        graph = flatten(model)
        excluded = self._excluded(graph)
        variables = self._variables(graph, excluded)
        weights = {name: variable.numpy() for name, variable in variables.items()}
        for name, weight in weights.items():
            if not np.isfinite(weight).all():
                raise ValueError(
                    f"weight {name!r} holds NaN or infinite values; scores of it would "
                    "mean nothing. Load or initialise finite weights first"
                )
        now = masks_of(graph)
        masks = {n: now.get(n, np.ones(w.shape, bool)) for n, w in weights.items()}
        problem = Problem(
            graph,
            weights,
            excluded,
            data,
            self.seed,
            self.dtype,
            model,
            self.loss,
            self.training,
            self.temperature,
            self._batch_bar,
        )
        return problem, masks

    def _excluded(self, graph: Graph) -> tuple[str, ...]:
        """The names of the layers that `exclude` stands for, in the model's order."""
        names = dict.fromkeys(call.name for call in graph.calls)
        found: set[str] = set()
        unknown = []
        for wanted in self.exclude:
            # A name that exists stands for itself, whatever characters it has.
            own = [wanted] if wanted in names else []
            own = own or [name for name in names if _within(name, wanted)]
            found.update(own)
            if not own:
                unknown.append(wanted)
        if unknown:
            raise ValueError(
                f"exclude names {', '.join(map(repr, unknown))}, but the model has no "
                "such layer; it has the layers (and nested models, up to each /) "
                f"{sorted(names)}"
            )
        return tuple(name for name in names if name in found)

    def _variables(self, graph: Graph, excluded: Collection[str]) -> dict[str, Any]:
        """Name to variable of what may be pruned, in the model's order."""
        variables = {
            f"{call.name}/{short}": variable
            for call in graph.calls
            if call.name not in excluded
            for short, variable in self._prunable(call.layer).items()
        }
        if not variables:
            raise ValueError(
                "the model has no weight that may be pruned: its layers are "
                f"{_kinds(graph.calls)}, those excluded are {list(excluded)}, and "
                f"layer_types is {self.layer_types}"
            )
        return variables

    def _prunable(self, layer: Any) -> dict[str, Any]:
        """Short name to variable of the weights of a layer that may be pruned."""
        if self.layer_types is not None and type(layer) not in self.layer_types:
            return {}
        return prunable_weights(layer)

    def _progress_bar(self, iterations: Any) -> Any:
        return tqdm(
            iterations,
            desc=f"pruning ({getattr(self.criterion, '__name__', self.criterion)})",
            unit="iteration",
            delay=1,
            mininterval=0.5,
            disable=not self.progress,
        )

    def _batch_bar(self, batches: Any) -> Any:
        return tqdm(
            batches,
            desc="gradients",
            unit="batch",
            delay=3,
            mininterval=0.5,
            leave=False,
            disable=not self.progress,
        )


def _within(name: str, pattern: str) -> bool:
    """Whether a pattern fits the path of a layer, or of a model that it is in."""
    paths = itertools.accumulate(name.split("/"), "{}/{}".format)
    return any(fnmatchcase(path, pattern) for path in paths)


def _kinds(calls: tuple[Call, ...]) -> list[str]:
    return sorted({type(call.layer).__name__ for call in calls})
