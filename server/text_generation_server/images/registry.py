"""Which models take images, and how: `model_type` of config.json to its family."""

from collections.abc import Callable, Mapping
from pathlib import Path

from text_generation_server.images.family import ImageFamily
from text_generation_server.images.files import ImageFiles
from text_generation_server.images.idefics import idefics
from text_generation_server.images.idefics2 import idefics2
from text_generation_server.images.idefics3 import idefics3
from text_generation_server.images.llava_next import llava_next
from text_generation_server.images.mllama import mllama
from text_generation_server.images.qwen2_vl import qwen2_vl
from text_generation_server.images.square import gemma3, paligemma

FAMILIES: Mapping[str, Callable[[ImageFiles], ImageFamily]] = {
    "gemma3": gemma3,
    "idefics": idefics,
    "idefics2": idefics2,
    "idefics3": idefics3,
    "llava_next": llava_next,
    "mllama": mllama,
    "paligemma": paligemma,
    "qwen2_5_vl": qwen2_vl,
    "qwen2_vl": qwen2_vl,
    "qwen3_vl": qwen2_vl,
    "qwen3_vl_moe": qwen2_vl,
    "smolvlm": idefics3,
}


def read_family(directory: Path) -> ImageFamily | None:
    """How the model of a directory takes images; None if it takes none. Raises UnsupportedModel, ModelNotFound."""
    files = ImageFiles.read(directory)
    make = FAMILIES.get(files.model.get("model_type", str) or "")
    return None if make is None else make(files)
