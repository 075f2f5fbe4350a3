"""How image features come to the language model: connectors, gated cross-attention, a second tower."""
