# SPDX-License-Identifier: Apache-2.0
"""The exact model: a Llama in numpy on dequantised weights, in single precision throughout.

llama.cpp rounds activations to 8 bits in front of every product, so its own answers depend on how it is compiled and
called; this one shows what the file says, and how far each engine is from that.
"""

import numpy as np
from gguf import GGUFReader, dequantize


class Reference:
    def __init__(self, path):
        reader = GGUFReader(path)
        value = lambda key: reader.fields[key].contents()
        self.weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers, self.heads = value("llama.block_count"), value("llama.attention.head_count")
        self.kv_heads, self.hidden = value("llama.attention.head_count_kv"), value("llama.embedding_length")
        self.eps, self.base = value("llama.attention.layer_norm_rms_epsilon"), value("llama.rope.freq_base")
        self.head_dim = self.hidden // self.heads
        self.clear()

    def clear(self):
        self.keys = [np.empty((0, self.kv_heads, self.head_dim), np.float32) for _ in range(self.layers)]
        self.values = [k.copy() for k in self.keys]

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[name + ".weight"]

    def product(self, x, name):
        return x @ self.weights[name + ".weight"].T

    def rotate(self, x, begin):  # (tokens, heads, head_dim), adjacent pairs
        angles = np.arange(begin, begin + len(x))[:, None] * self.base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def attend(self, q, keys, values):  # (tokens, heads, head_dim) over (length, kv_heads, head_dim)
        group, tokens, length = self.heads // self.kv_heads, len(q), len(keys)
        scores = np.einsum("ihd,jhd->hij", q, np.repeat(keys, group, 1)) / np.sqrt(np.float32(self.head_dim))
        scores += np.triu(np.full((tokens, length), -np.inf, np.float32), length - tokens + 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hij,jhd->ihd", weights, np.repeat(values, group, 1)).reshape(tokens, -1)

    def feed(self, ids, logits_from=0):
        """Appends tokens; returns the logits (n, vocabulary) of what follows each of ids[logits_from:]."""
        x = self.weights["token_embd.weight"][ids]
        begin = len(self.keys[0])
        split = lambda y: y.reshape(len(ids), -1, self.head_dim)
        for i in range(self.layers):
            layer = f"blk.{i}."
            h = self.norm(x, layer + "attn_norm")
            q = self.rotate(split(self.product(h, layer + "attn_q")), begin)
            self.keys[i] = np.concatenate([self.keys[i], self.rotate(split(self.product(h, layer + "attn_k")), begin)])
            self.values[i] = np.concatenate([self.values[i], split(self.product(h, layer + "attn_v"))])
            x = x + self.product(self.attend(q, self.keys[i], self.values[i]), layer + "attn_output")
            h = self.norm(x, layer + "ffn_norm")
            gate, up = self.product(h, layer + "ffn_gate"), self.product(h, layer + "ffn_up")
            x = x + self.product(gate / (1 + np.exp(-gate)) * up, layer + "ffn_down")
        output = "output" if "output.weight" in self.weights else "token_embd"
        return self.product(self.norm(x[logits_from:], "output_norm"), output)
