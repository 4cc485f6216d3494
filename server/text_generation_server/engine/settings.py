"""What an operator and a model decide about an engine. Knows no variables and no options."""

from collections.abc import Callable
from dataclasses import dataclass, field

from text_generation_server.sampling.params import WatermarkParams
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight


def no_places(num_rows: int) -> int:
    """Of a model that takes no images."""
    return 0


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an operator decides about an engine.

    max_rows: most sequences served at once. all_rows: so many are asked for, whatever memory they take; else they are
    what memory allows, up to that. block_size: slots in a block of the local allocator.
    run_ahead: launch the next step before reading the last, where that has no guesses. speculate: most tokens guessed
    after each chosen one, where that pays; 0 for none. memory_fraction: of the device, for everything.
    position_limit: longest sequence the model can take, None if unbounded.
    usual_length: longest sequence where neither the model nor an operator says, None if nothing does.
    watermark: how requests that ask for one are marked.
    shares_prefixes: whether requests may take over what others computed for the same prompt tokens.
    graphs: numbers of rows for which decode steps are recorded, where the device can.
    max_mixed_tokens: of a step that goes on with answers beside prompts, which bounds how long they wait for a token.
    start: the token that answers begin behind where the model's encoder reads the prompts; None where it has none.
    feature_places: for how many features of images there is room beside so many rows; none where the model takes none.
    sight: which positions see what is behind them. views: which images they see where layers attend to those.
    """

    max_rows: int
    block_size: int
    run_ahead: bool
    memory_fraction: float
    position_limit: int | None
    watermark: WatermarkParams = field(default_factory=WatermarkParams)
    shares_prefixes: bool = True
    speculate: int = 0
    graphs: tuple[int, ...] = ()
    usual_length: int | None = None
    max_mixed_tokens: int = 1024
    start: int | None = None
    all_rows: bool = False
    feature_places: Callable[[int], int] = no_places
    sight: Sight = Sight.CAUSAL
    views: Views | None = None
