"""Translates an operator graph of torch, operator by operator, to an ONNX graph for images of one size."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from latency.errors import UntranslatedOperatorError
from latency.graph.operator_graph import Operator, OperatorCall, OperatorGraph, TensorReference
from latency.graph.to_onnx.nodes import OPSET_VERSION, TRACED_BATCH, Call, Nodes, Value, depends_on_batch, onnx_type
from latency.graph.to_onnx.table import TRANSLATIONS

_IR_VERSION = 10  # that of torch's exporter: onnxruntime refuses files that are newer than itself


def onnx_from_graph(
    graph: OperatorGraph, model: nn.Module, *, input_name: str = "image", output_name: str = "logits"
) -> onnx.ModelProto:
    """Return the ONNX model of a traced network, for a batch of any size.

    What depends neither on the input nor on the batch is computed here, and its result stored.

    Args:
        graph: Of `model`, by `latency.graph.tracer`, for a batch of `TRACED_BATCH`; one tensor in, one out.
        model: Gives the weights.
        input_name: Of the ONNX graph's input.
        output_name: Of its output.

    Raises:
        UntranslatedOperatorError: If an operator has no translation, or tensors are overwritten in a way that a graph
            without memory cannot follow.
    """
    translation = _Translation(graph, model, input_name)
    for operator in graph.operators:
        translation.take(operator)
    return translation.model(output_name)


class _Translation:
    """What a graph's tensors hold up to some operator: what depends on the input has a name, the others are here."""

    def __init__(self, graph: OperatorGraph, model: nn.Module, input_name: str) -> None:
        self._graph = graph
        self._nodes = Nodes(input_name)
        self._input_name = input_name
        self._values: dict[int, str | torch.Tensor] = {graph.inputs[0]: input_name}
        self._overwritten: set[int] = set()
        self._weight_names = {index: name for name, index in (*graph.parameters.items(), *graph.buffers.items())}
        weights = dict((*model.named_parameters(), *model.named_buffers()))
        self._values |= {index: weights[name].detach() for index, name in self._weight_names.items()}
        self._weight_storages = {graph.tensors[index].storage for index in self._weight_names}
        self._sharing = defaultdict[int, set[int]](set)  # by storage the tensors that lie in it
        for index in self._values:
            self._sharing[graph.tensors[index].storage].add(index)

    def take(self, operator: Operator) -> None:
        """Bring the values to where they are after `operator`."""
        assert operator.call is not None  # noqa: S101 - the graph comes from torch
        for index in operator.inputs:
            self._require_known(index, operator)
        results: Mapping[int, str | torch.Tensor]
        if self._must_be_written(operator):
            results = self._translated(operator, operator.call)
            for index in operator.writes:  # names stand for numbers, not for memory: other views do not follow
                self._overwritten |= self._sharing[self._graph.tensors[index].storage]
        else:
            results = self._computed(operator, operator.call)
        for index, value in results.items():
            self._values[index] = value
            self._overwritten.discard(index)
            self._sharing[self._graph.tensors[index].storage].add(index)

    def _must_be_written(self, operator: Operator) -> bool:
        """Return whether an operator's results are other ones for another input or batch."""
        sizes = (size for index in operator.outputs for size in self._graph.tensors[index].shape)
        return any(isinstance(self._values[index], str) for index in operator.inputs) or any(
            map(depends_on_batch, sizes)
        )

    def model(self, output_name: str) -> onnx.ModelProto:
        """Return all that was translated."""
        (output,) = self._graph.outputs
        last = self._values.get(output, self._input_name)
        if last == self._input_name or isinstance(last, torch.Tensor) or output in self._overwritten:
            raise UntranslatedOperatorError("an output that no operator computes from the input has no translation")
        for node in self._nodes.nodes:
            for names in (node.input, node.output):
                names[:] = [output_name if name == last else name for name in names]
        used = {name for node in self._nodes.nodes for name in node.input}
        graph = onnx.helper.make_graph(
            self._nodes.nodes,
            "network",
            [self._declared(self._input_name, self._graph.inputs[0])],
            [self._declared(output_name, output)],
            [
                onnx.numpy_helper.from_array(values, name)
                for name, values in self._nodes.constants.items()
                if name in used
            ],
        )
        opsets = [onnx.helper.make_opsetid("", OPSET_VERSION)]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _translated(self, operator: Operator, call: OperatorCall) -> dict[int, str]:
        name = operator.name
        translate = TRANSLATIONS.get(name) or (TRANSLATIONS.get(name[:-1]) if name.endswith("_") else None)
        if translate is None:
            raise UntranslatedOperatorError(f"{name} has no translation")
        arguments = tree_map_only(TensorReference, lambda reference: self._value(reference.tensor), _named(call))
        infos = [self._graph.tensors[index] for index in operator.outputs]
        outputs = tuple(Value("", info.shape, info.dtype) for info in infos)
        named = translate(self._nodes, Call(name, arguments, outputs))
        # A translation may leave out a result that is seldom used, such as the places of maxima.
        return dict(zip(operator.outputs, [named] if isinstance(named, str) else named, strict=False))

    def _computed(self, operator: Operator, call: OperatorCall) -> dict[int, torch.Tensor]:
        """Run an operator on constants."""
        if torch.Tag.nondeterministic_seeded in call.function.tags:
            raise UntranslatedOperatorError(f"{operator.name} draws random numbers and has no translation")
        if any(self._graph.tensors[index].storage in self._weight_storages for index in operator.writes):
            raise UntranslatedOperatorError(f"{operator.name} overwrites a weight and has no translation")
        args, kwargs = tree_map_only(
            TensorReference, lambda reference: self._values[reference.tensor], (call.args, dict(call.kwargs))
        )
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")  # traced on the meta device
        with torch.no_grad():
            result = call.function(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return dict(zip(operator.outputs, tensors, strict=True))

    def _require_known(self, index: int, operator: Operator) -> None:
        if index in self._overwritten:
            raise UntranslatedOperatorError(f"{operator.name} reads memory that was overwritten through another view")
        if index not in self._values:
            raise UntranslatedOperatorError(
                f"{operator.name} reads a tensor that is no parameter, buffer or translated result"
            )

    def _value(self, index: int) -> Value:
        info, value = self._graph.tensors[index], self._values[index]
        if isinstance(value, torch.Tensor):
            name = self._weight_names.get(index, f"computed_{index}")
            if value.device.type != "cpu":
                raise UntranslatedOperatorError(f"a tensor on {value.device} outside the model has no translation")
            self._nodes.constants[name] = value.numpy()
            value = name
        return Value(value, info.shape, info.dtype)

    def _declared(self, name: str, index: int) -> onnx.ValueInfoProto:
        info = self._graph.tensors[index]
        sizes = ["batch" if size == TRACED_BATCH else None if depends_on_batch(size) else size for size in info.shape]
        return onnx.helper.make_tensor_value_info(name, onnx_type(info.dtype), sizes)


def _named(call: OperatorCall) -> dict[str, Any]:
    """Return all arguments by name, with the schema's defaults."""
    return dict(_arguments(call))


def _arguments(call: OperatorCall) -> Iterator[tuple[str, Any]]:
    for position, argument in enumerate(call.function._schema.arguments):
        if position < len(call.args):
            yield argument.name, call.args[position]
        else:
            yield argument.name, call.kwargs.get(argument.name, argument.default_value)
