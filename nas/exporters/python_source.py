"""A trained network written out as one readable Python file, without this project, beside its weights."""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import fx, nn

from nas.errors import ExportError
from nas.exporters.contract import Contract
from nas.exporters.formats import Exported, ExportOptions
from nas.exporters.product import Product
from nas.exporters.verification import compare
from nas.files import atomic_path, write_text

_SNIPPET = """import torch
from {module} import Network  # {name}, beside its weights

network = Network.load("{weights}")
print(network(torch.zeros(1, {shape})).argmax(1))"""


def export_python(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write `path`, a Python file with the network as a plain `nn.Module`, and its weights beside it.

    The class takes images in 0 .. 1 and gives logits, as all formats do.

    Raises:
        ExportError: If the network's code branches on its input, or the file computes something else; no file is left.
    """
    options.refuse_those_of_onnx()
    if not re.fullmatch(r"[a-zA-Z_]\w*", path.stem):
        path = path.with_name("network_" + re.sub(r"\W", "_", path.stem) + ".py")
    weights = path.with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = _Source(product)
    try:
        with atomic_path(weights) as temporary:
            save_file(source.state, temporary)
        write_text(path, source.text(weights.name))
        compared = compare(product, _run(path, weights))
    except ExportError:
        path.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
        raise
    shape = ", ".join(map(str, product.signature.input_shape))
    code = _SNIPPET.format(module=path.stem, name=path.name, weights=weights.name, shape=shape)
    return Exported("python", (path, weights), Contract.of(product), code, compared)


class _Sized(fx.Proxy):
    """A traced tensor whose sizes are known: code may branch on them."""

    value: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.value.size() if dim is None else self.value.size(dim)

    def dim(self) -> int:
        return self.value.dim()


class _Tracer(fx.Tracer):
    """Follows the calls down to torch's own modules, computing along with an example."""

    def __init__(self, example: torch.Tensor) -> None:
        super().__init__()
        self._example = example
        self._computes = False  # while a value is computed, nothing is traced

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computes else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._computes else super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_container = isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return type(m).__module__.startswith("torch.nn") and not is_container

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        made: Any = super().create_proxy(kind, target, args, kwargs, *more, **options)
        self._computes = True
        try:
            values = (fx.node.map_aggregate(given, _value_of) for given in (args, kwargs))
            made.value = self._value(kind, target, *values)
        finally:
            self._computes = False
        return made

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        match kind:
            case "placeholder":
                return self._example
            case "get_attr":
                return _attribute(self.root, target)
            case "call_module":
                return _attribute(self.root, target).forward(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case "call_function":
                return target(*args, **kwargs)
        return args[0] if args else None


def _value_of(argument: Any) -> Any:
    return argument.value if isinstance(argument, _Sized) else argument


class _Source:
    """The text of the file, and the weights by the names that it gives them."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._network = product.image_network()
        try:
            with torch.no_grad():
                example = torch.zeros(2, *product.signature.input_shape)
                self._graph = _Tracer(example).trace(self._network)
        except Exception as error:
            raise ExportError(
                f"the network's code cannot be written out: {' '.join(str(error).split())[:300]}"
            ) from error
        self._names: dict[tuple[str, ...], str] = {}
        self.state: dict[str, torch.Tensor] = {}
        self._layers = [self._line(node, chain) for node, chain in self._chains()]
        for number, node in enumerate(self._graph.nodes):
            if node.op not in ("placeholder", "output"):
                node._rename(f"x{number}")

    def _chains(self) -> Iterator[tuple[fx.Node, tuple[str, ...]]]:
        """Fold layers that follow each other in one module into one node; yield each new node with its layers."""
        done: set[tuple[str, ...]] = set()
        for node in list(self._graph.nodes):
            if node.op not in ("call_module", "get_attr") or node not in self._graph.nodes:
                continue
            chain = [node]
            while node.op == "call_module" and _follows(chain[-1]):
                chain.append(next(iter(chain[-1].users)))
            targets = tuple(str(one.target) for one in chain)
            name = self._names.setdefault(targets, _name_of(targets, set(self._names.values())))
            for later in reversed(chain[1:]):
                later.replace_all_uses_with(node)
                self._graph.erase_node(later)
            node.target = name
            if targets not in done:
                done.add(targets)
                yield node, targets

    def _line(self, node: fx.Node, targets: tuple[str, ...]) -> str:
        """Return the line that makes layers, a parameter or a buffer, and gather the weights."""
        name, found = str(node.target), [_attribute(self._network, target) for target in targets]
        if node.op == "get_attr":
            self.state[name] = _plain(found[0])
            empty = f"torch.empty({tuple(found[0].shape)}, dtype={found[0].dtype})"
            is_parameter = isinstance(found[0], nn.Parameter)
            return (
                f"self.{name} = nn.Parameter({empty})" if is_parameter else (f'self.register_buffer("{name}", {empty})')
            )
        for number, layer in enumerate(found):
            prefix = name if len(found) == 1 else f"{name}.{number}"
            self.state |= {f"{prefix}.{key}": _plain(value) for key, value in layer.state_dict().items()}
        calls = [f"nn.{_constructor(layer)}" for layer in found]
        if len(calls) == 1:
            return f"self.{name} = {calls[0]}"
        listed = "".join(f"            {call},\n" for call in calls)
        return f"self.{name} = nn.Sequential(\n{listed}        )"

    def text(self, weights: str) -> str:
        """Return the whole file."""
        code = self._graph.python_code("self").src
        body = _forward(code)
        origin = "".join(f"{key}: {value}\n" for key, value in self._product.origin.items())
        contract = "\n".join(line.strip() for line in Contract.of(self._product).lines())
        layers = "\n".join(f"        {line}" for line in self._layers)
        return f'''"""A network found by pareto-nas; needs torch and safetensors alone.

{origin}
{contract}
"""

import torch
from safetensors.torch import load_file
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, image):
{body}

    @classmethod
    def load(cls, path="{weights}"):
        """Return the trained network in eval mode."""
        network = cls()
        network.load_state_dict(load_file(path))
        return network.eval()
'''


def _forward(code: str) -> str:
    """Return the body of a traced `forward`, without annotations and what frees variables."""
    lines = code[code.index("def forward") :].splitlines()[1:]
    lines = [re.sub(r";\s+[\w, =]+= None\s*(#.*)?$", "", line).rstrip() for line in lines]
    return "\n".join(f"    {line}" for line in lines if line.strip())


def _follows(node: fx.Node) -> bool:
    """Return whether a layer's result goes to nothing but a next layer in the same module."""
    if len(node.users) != 1:
        return False
    following = next(iter(node.users))
    parents = [str(one.target).rpartition(".")[0] for one in (node, following)]
    is_plain = following.op == "call_module" and following.args == (node,) and not following.kwargs
    return is_plain and parents[0] == parents[1]


def _name_of(targets: tuple[str, ...], taken: set[str]) -> str:
    """Return a plain name for a nested one: `network.cells.0.conv` becomes `cells_0_conv`; a chain has its module's."""
    target = targets[0] if len(targets) == 1 else targets[0].rpartition(".")[0]
    name = target.removeprefix("network.").replace(".", "_")
    name = f"layer_{name}" if not re.match(r"[a-zA-Z_]", name) else name
    while name in taken or hasattr(nn.Module, name):
        name += "_"
    return name


def _attribute(root: nn.Module, target: str) -> Any:
    found: Any = root
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().contiguous().clone()


def _constructor(layer: nn.Module) -> str:
    """Return the call that makes a layer: the options that it was made with, but defaults."""
    name = type(layer).__name__
    if getattr(nn, name, None) is not type(layer):
        raise ExportError(f"the network's code cannot be written out: it holds a {name}")
    options = []
    for option in list(inspect.signature(type(layer).__init__).parameters.values())[1:]:
        is_listed = option.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if option.name in ("device", "dtype") or not is_listed:
            continue
        value = getattr(layer, option.name)
        if option.name == "bias":
            value = value is not None
        if option.default is inspect.Parameter.empty:
            options.append(repr(value))
        elif value != option.default and not _is_spread(value, option.default):
            options.append(f"{option.name}={value!r}")
    return f"{name}({', '.join(options)})"


def _is_spread(value: Any, default: Any) -> bool:
    """Return whether a pair of equal numbers stands for the default: torch keeps `stride=1` as `(1, 1)`."""
    return isinstance(value, tuple) and not isinstance(default, tuple) and set(value) == {default}


def _run(path: Path, weights: Path) -> Any:
    """Return the network of a written file, imported as a user would."""
    name = f"exported_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101 - the file was just written
    assert spec.loader is not None  # noqa: S101 - as above
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = module.Network()
        network.load_state_dict(load_file(weights))
    except Exception as error:
        raise ExportError(f"the network's code cannot be written out: {error}") from error
    finally:
        sys.modules.pop(name, None)
    network.eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(images)))

    return run
