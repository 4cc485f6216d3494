"""Finds the linears of a model that an adapter's pairs change. Knows names and shapes, no numbers.

An adapter must change all that it says and nothing that it does not: what would be left out is refused by name.
"""

from collections.abc import Iterable, Mapping

from text_generation_server.adapters.pairs import Adapter, LoraPair
from text_generation_server.errors import UnsupportedModel
from text_generation_server.layers.linear import ParallelLinear

Shapes = Mapping[str, tuple[int, int]]
"""Outputs and inputs of each linear of the checkpoint, by its name."""


def shapes_of(linears: Iterable[ParallelLinear]) -> dict[str, tuple[int, int]]:
    """The linears of the checkpoint that these are made of."""
    return {piece.name: piece.shape for linear in linears for piece in linear.slices}


def match(adapter: Adapter, shapes: Shapes) -> dict[str, LoraPair]:
    """The adapter's pairs by the names of the model's linears.

    An adapter that was trained on the model without its head lacks the first part of every name.

    Raises:
        UnsupportedModel: it does not fit this model, or its two files contradict each other; the text says where.
    """
    full = {short: name for name in shapes if (short := name.partition(".")[2])} | {name: name for name in shapes}
    matched: dict[str, LoraPair] = {}
    for module, pair in adapter.pairs.items():
        name = full.get(module)
        if name is None:
            raise UnsupportedModel(_unknown(adapter, module, shapes))
        if not adapter.config.targets(module):
            raise UnsupportedModel(
                f"{adapter.directory} holds matrices for {module}, which target_modules of {adapter.config.where} "
                "leave out"
            )
        _check_shape(adapter, name, pair, shapes[name])
        matched[name] = pair
    missing = next((name for name in shapes if adapter.config.targets(name) and name not in matched), None)
    if missing is not None:
        raise UnsupportedModel(
            f"{adapter.directory} holds no matrices for {missing}, which target_modules of {adapter.config.where} name"
        )
    return matched


def _unknown(adapter: Adapter, module: str, shapes: Shapes) -> str:
    """The sentence for a module that is no linear of the model, with those beside it."""
    parent, _, own = module.rpartition(".")
    beside = sorted({name.rpartition(".")[2] for name in shapes if name.rpartition(".")[0].endswith(parent)})
    hint = f" (those are {', '.join(beside)})" if beside else ""
    return (
        f"{adapter.directory} changes {own} of {parent}, which is none of the linears that adapters can change in this "
        f"model{hint}: experts, embeddings and output heads are not, nor are parts of fused linears"
    )


def _check_shape(adapter: Adapter, name: str, pair: LoraPair, shape: tuple[int, int]) -> None:
    if (pair.up.shape[0], pair.down.shape[1]) != shape:
        raise UnsupportedModel(
            f"{adapter.directory}: lora_A and lora_B of {name} have shapes {list(pair.down.shape)} and "
            f"{list(pair.up.shape)}, which do not fit the model's {list(shape)}: it is an adapter to another model"
        )
