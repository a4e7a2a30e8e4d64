"""A Hugging Face BERT that reads texts for a dual encoder (Devlin et al., 2019), as LiT does (Zhai et al., 2022)."""

from typing import Literal, final

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel

from isthmus.nn.pooling import masked_mean
from isthmus.parts.checkpoints import PretrainedSource, load_configuration, load_network


@final
class PretrainedTextEncoder(nn.Module):
    """A BERT whose words become one vector, and a projection.

    `first` is what the last layer gives at `[CLS]`, which LiT's published code projects; `mean` is the mean over all
    tokens that are no padding, `[CLS]` and `[SEP]` among them. Dropout is the network's own.
    """

    def __init__(
        self,
        *,
        network: PreTrainedModel,
        embed_dim: int,
        context: int,
        pool: Literal["first", "mean"] = "first",
        head_bias: bool = False,
    ) -> None:
        """Wrap a network.

        Args:
            network: What `load_text_network` gives.
            embed_dim: Size of the vector.
            context: Largest number of tokens in a text.
            pool: How tokens become one vector.
            head_bias: Whether the projection has a bias.

        Raises:
            ValueError: The network has fewer positions than a text may have tokens.
        """
        super().__init__()
        positions = int(network.config.max_position_embeddings)
        if context > positions:
            raise ValueError(
                f"context: found {context}, but the network has {positions} positions; give at most that many"
            )
        self.network = network
        self.context = context
        self.pool = pool
        self.projection = nn.Linear(int(network.config.hidden_size), embed_dim, bias=head_bias)

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the network has vectors for."""
        return int(self.network.config.vocab_size)

    def forward(
        self, token_ids: Int[Tensor, "text token"], mask: Bool[Tensor, "text token"]
    ) -> Float[Tensor, "text dim"]:
        """One vector a text, not yet of unit length.

        Raises:
            ValueError: The texts are longer than the context.
        """
        if token_ids.shape[1] > self.context:
            raise ValueError(
                f"a text has {token_ids.shape[1]} tokens, but the text encoder reads at most {self.context}; "
                "shorten it or raise the context"
            )
        tokens = self.network(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state
        return self.projection(tokens[:, 0] if self.pool == "first" else masked_mean(tokens, mask))


def load_text_network(source: PretrainedSource) -> PreTrainedModel:
    """A BERT without its pooling layer.

    Raises:
        ValueError: The configuration is that of another network, or of one whose words see only earlier ones.
        OSError: The folder or name is not there.
    """
    config = load_configuration(source)
    if config.model_type != "bert" or config.is_decoder:
        found = "a BERT that writes" if config.model_type == "bert" else f"a '{config.model_type}'"
        raise ValueError(f"'{source.name}' is {found}; expected a BERT that reads, with is_decoder false")
    return load_network(BertModel, source, config=config, options={"add_pooling_layer": False})
