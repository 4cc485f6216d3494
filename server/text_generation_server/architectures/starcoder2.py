"""StarCoder2 3B, 7B and 15B: Mistral's attention, layer norms, a plain MLP, biases. Checked against transformers 5.23.

Trap: the head is the embedding where no key says otherwise.
"""

from dataclasses import replace

from text_generation_server.architectures.mistral import llama_with_window
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, MlpSpec, layer_norm


def starcoder2(config: ConfigDict) -> DecoderSpec:
    """The spec of a StarCoder2."""
    spec, bias = llama_with_window(config), config.flag("use_bias", default=True)
    activation = config.activation("hidden_act", default="gelu_pytorch_tanh")
    return replace(
        spec,
        norm=layer_norm(config.number("norm_epsilon", default=1e-5)),
        attention=replace(spec.attention, qkv_bias=bias, out_bias=bias),
        mlp=MlpSpec(spec.mlp.inner_size, activation, gated=False, bias=bias),
        names=replace(spec.names, up=("mlp.c_fc",), down="mlp.c_proj"),
        head=config.head(tied_by_default=True),
    )
